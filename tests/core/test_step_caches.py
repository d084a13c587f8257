"""Step caches: what they skip, that a threshold of 0 skips nothing, and that interrupted runs go on with them.

Source of the recorded runs: tests/goldens/pipe_v5_1_t2v, calls `teacache_7b` and `teacache_12b`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easyanimate_core.data import Geometry, State, TextEmbedding
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.engine import Engine, JobStore
from easyanimate_core.errors import Cancelled, InvalidRequest
from easyanimate_core.events import CancelToken, Event, EventBus, Notice, Step
from easyanimate_core.interfaces import CacheMemory, DenoiserCall, ShowsChange, SplitsTrunk, Toolbox
from easyanimate_core.offload.resident import Resident
from easyanimate_core.pipeline import default_plan, load, run
from easyanimate_core.pipeline.caching import CacheChain
from easyanimate_core.pipeline.denoise import Denoise
from easyanimate_core.request import GenerationRequest
from easyanimate_core.samplers.catalog import Flow
from easyanimate_core.samplers.options import FlowOptions
from easyanimate_core.schema import Choice, parse
from easyanimate_core.slots import STEP_CACHES
from easyanimate_core.step_caches.options import TeaCacheOptions
from easyanimate_core.step_caches.teacache import TeaCache
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG
from easyanimate_core.vae.magvit import Magvit
from golden import Call, assert_close, load_case
from recorder import Recorder

CASE = load_case("pipe_v5_1_t2v")
IDENTITY = [1.0, 0.0]
CACHES: dict[str, dict[str, Any]] = {
    "teacache": {"name": "teacache", "coefficients": IDENTITY},
    "first-block": {"name": "first-block"},
    "easycache": {"name": "easycache", "warmup": 2},
    "cfg-gate": {"name": "cfg-gate"},
}
EXACT = {"cfg-gate": {"after": 1.0}}
LARGE = {"cfg-gate": {"after": 0.0}}
ASKED = {"prompt": "a", "size": "32x48", "frames": 5, "steps": 6, "guidance": 3.0, "seed": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), max_length=32)


@pytest.fixture(scope="module")
def pipe(weights: Path) -> Any:
    return load("nano", weights=weights)


@pytest.fixture(scope="module")
def plain(pipe: Any) -> Tensor:
    frames: Tensor = pipe(**ASKED).frames
    return frames


def exact(name: str) -> dict[str, Any]:
    return {**CACHES[name], **EXACT.get(name, {"threshold": 0.0})}


def large(name: str) -> dict[str, Any]:
    return {**CACHES[name], **LARGE.get(name, {"threshold": 10.0})}


@cache
def models() -> tuple[Any, Any]:
    made = []
    for kind, part in ((MMDiT, "transformer"), (Magvit, "vae")):
        known = inspect.signature(kind.__init__).parameters
        module: Any = kind(**{key: value for key, value in CASE.config[part].items() if key in known})
        module.load_state_dict(CASE.state_dict(part), strict=True)
        made.append(module.eval())
    return made[0], made[1]


@pytest.mark.feature("C053")
@pytest.mark.parametrize("apart", [False, True], ids=["one batch", "two passes"])
@pytest.mark.parametrize("name", ["teacache_7b", "teacache_12b"])
def test_every_step_is_as_recorded_with_teacache(name: str, apart: bool) -> None:
    call: Call = CASE.call(name)
    said, given, tea = call.kwargs, call.inputs, call.kwargs["teacache"]
    options = {"name": "teacache", "threshold": tea["rel_l1_thresh"], "coefficients": tea["coefficients"]}
    request = GenerationRequest(
        prompt="a", negative_prompt="b", steps=8, guidance=said["guidance_scale"], fps=8, seed=0, step_caches=[options]
    )
    state = State(
        request,
        Geometry(said["height"], said["width"], said["video_length"]),
        text=(TextEmbedding(given["prompt_embeds"], given["prompt_attention_mask"]),),
        negative_text=(TextEmbedding(given["negative_prompt_embeds"], given["negative_prompt_attention_mask"]),),
        latents=given["latents"],
    )
    heard = Recorder()
    sampler = Flow(parse(FlowOptions, said["scheduler"]["config"]))
    cpu = torch.device("cpu")
    toolbox = Toolbox((), *models(), sampler, Resident(), cpu, torch.float32, EventBus(heard), CancelToken())
    toolbox = replace(toolbox, apart=apart)
    outputs: dict[str, Tensor] = {}
    plan = default_plan(request)
    plan.replace("denoise", Denoise(on_step=lambda i, latents: outputs.update({f"latents_step{i}": latents})))
    done = run(plan, state, toolbox)
    assert done.video is not None
    outputs["frames"] = done.video.frames
    assert_close(call, outputs, only=[key for key in call.expected if key.startswith(("latents", "frames"))])
    skipped = [step for step in range(8) if step not in tea["computed_steps"]]
    assert done.notes["step_caches"]["teacache"]["skipped"] == skipped
    error = done.notes["step_caches"]["teacache"]["estimated_error"]
    (said_so,) = [event.message for event in heard if isinstance(event, Notice)]
    assert said_so == f"step cache teacache skipped 3 of 8 steps (1, 3, 5); estimated error {error:.1%}"


@pytest.mark.feature("C053")
@pytest.mark.parametrize("name", list(CACHES))
def test_a_threshold_of_0_gives_exactly_the_plain_video(pipe: Any, plain: Tensor, name: str) -> None:
    video = pipe(**ASKED, step_caches=[exact(name)])
    assert torch.equal(video.frames, plain)
    assert video.notes["step_caches"][name] == {"skipped": [], "steps": 6, "estimated_error": 0.0}


@pytest.mark.feature("C053")
@pytest.mark.parametrize(
    ("name", "skipped"),
    [
        ("teacache", [1, 2, 3, 4]),
        ("first-block", [1, 2, 3, 4]),
        ("easycache", [2, 3, 4]),
        ("cfg-gate", [2, 3, 4, 5]),
    ],
)
def test_a_large_threshold_skips_all_that_may_be_skipped(
    pipe: Any, plain: Tensor, name: str, skipped: list[int]
) -> None:
    first = pipe(**ASKED, step_caches=[large(name)])
    assert first.notes["step_caches"][name]["skipped"] == skipped
    assert 0 < first.notes["step_caches"][name]["estimated_error"] < 10
    assert not torch.equal(first.frames, plain)
    assert (first.frames - plain).abs().mean() < 0.1
    again = pipe(**ASKED, step_caches=[large(name)])
    assert torch.equal(again.frames, first.frames), "nothing of a run is left for the next one"
    assert torch.equal(pipe(**ASKED).frames, plain)


@pytest.mark.feature("C053")
@pytest.mark.parametrize("inner", ["teacache", "easycache"])
def test_the_gate_stands_in_front_of_others(pipe: Any, plain: Tensor, inner: str) -> None:
    both = pipe(**ASKED, step_caches=[exact(inner), exact("cfg-gate")])
    assert torch.equal(both.frames, plain)
    notes = pipe(**ASKED, step_caches=[large("cfg-gate"), large(inner)]).notes["step_caches"]
    assert notes["cfg-gate"]["skipped"]
    assert notes[inner]["skipped"]


@pytest.mark.feature("C053")
@pytest.mark.parametrize("name", ["teacache", "first-block"])
def test_where_memory_is_short_a_cache_lets_the_halves_of_guidance_take_turns(weights: Path, name: str) -> None:
    denoiser: Any = load("nano", weights=weights).prepare().denoiser
    seen: list[int] = []
    query = denoiser.transformer_blocks[1].attn1.to_q
    hook = query.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    found = []
    for apart in (False, True):
        seen.clear()
        chain = CacheChain([Choice.of(STEP_CACHES, {**large(name), "threshold": 0.5})], denoiser, 6)
        made = torch.Generator().manual_seed(0)
        start, text = torch.randn(1, 16, 2, 4, 6, generator=made), torch.randn(2, 3, 32, generator=made)
        answers = []
        for step in range(6):
            x, when = torch.cat([start * (1 - 0.1 * step)] * 2), torch.full((2,), 900.0 - 100 * step)
            told = (TextEmbedding(text, torch.ones(2, 3, dtype=torch.long)),)
            call = DenoiserCall(step, 6, denoiser, denoiser, x, when, told, {}, True, apart=apart)
            with torch.no_grad():
                answers.append(chain.predict(call))
        found.append((chain._caches[0][1].report(), torch.stack(answers), set(seen)))
    hook.remove()
    (report, whole, _), (again, halves, batches) = found
    assert report.skipped == again.skipped != ()
    assert torch.allclose(whole, halves, atol=1e-5)
    assert batches == {1}, "no block had both halves at once"


def test_skipped_steps_do_not_run_the_blocks(weights: Path) -> None:
    pipe = load("nano", weights=weights)
    denoiser: Any = pipe.prepare().denoiser
    ran: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, at=at: ran.append(at))
        for at, block in enumerate(denoiser.transformer_blocks)
    ]
    for name, first, second in (("teacache", 2, 2), ("first-block", 6, 2), ("easycache", 3, 3), ("cfg-gate", 6, 6)):
        ran.clear()
        pipe(**ASKED, step_caches=[large(name)])
        assert (ran.count(0), ran.count(1)) == (first, second), name
    for hook in hooks:
        hook.remove()


@pytest.mark.feature("C053")
def test_looking_at_every_third_token_decides_alike(pipe: Any) -> None:
    def skipped(every: int) -> list[int]:
        options = {**CACHES["teacache"], "threshold": 0.5, "every": every}
        found: list[int] = pipe(**ASKED, step_caches=[options]).notes["step_caches"]["teacache"]["skipped"]
        return found

    assert skipped(1) == skipped(3) != []


@pytest.mark.feature("C053")
def test_coefficients_come_from_the_preset() -> None:
    from easyanimate_core.presets import find_preset

    preset = find_preset("v5.1-7b")
    request = preset.complete(GenerationRequest(prompt="a", model="v5.1-7b", step_caches=["teacache"]))
    assert request.step_caches[0].given["coefficients"] == preset.teacache
    assert request.step_caches[0].options == TeaCacheOptions(coefficients=preset.teacache)
    own = {"name": "teacache", "coefficients": [2.0, 0.0], "threshold": 0.1}
    request = preset.complete(GenerationRequest(prompt="a", model="v5.1-7b", step_caches=[own]))
    assert request.step_caches[0].given == {"coefficients": (2.0, 0.0), "threshold": 0.1}


@pytest.mark.feature("C053")
def test_a_model_without_coefficients_is_told_before_weights_are_read() -> None:
    with pytest.raises(InvalidRequest, match="no coefficients of 'teacache' for the model 'nano'") as caught:
        load("nano").complete(prompt="a", step_caches=["teacache"])
    assert "known for: v5.1-7b, v5.1-7b-inp" in caught.value.hint


@pytest.mark.feature("C053")
@pytest.mark.parametrize(("option", "value"), [("threshold", -0.1), ("every", 0)])
def test_nonsense_is_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        GenerationRequest(prompt="a", step_caches=[{"name": "teacache", option: value}])


def test_two_caches_of_the_same_place_are_refused(pipe: Any) -> None:
    with pytest.raises(InvalidRequest, match="'teacache' and 'first-block' cannot work together"):
        pipe(**ASKED, step_caches=[large("teacache"), large("first-block")])


class Shut(nn.Module):
    """A denoiser that shows nothing of its inside."""

    inlets = ()

    def embed(self, latents: Tensor, timestep: Tensor, text: Any, conditions: Any) -> Tensor:
        return latents * timestep[0]

    def trunk(self, tokens: Tensor) -> Tensor:
        return tokens * 2

    def head(self, tokens: Tensor) -> Tensor:
        return tokens + 1


@pytest.mark.parametrize("name", ["teacache", "first-block"])
def test_a_denoiser_that_cannot_be_looked_into_is_told(name: str) -> None:
    with pytest.raises(InvalidRequest, match="'Shut'") as caught:
        CacheChain([Choice.of(STEP_CACHES, large(name))], Shut(), 4)  # type: ignore[arg-type]
    assert "easycache" in caught.value.hint


def test_easycache_goes_with_every_denoiser() -> None:
    net: Any = Shut()
    chain = CacheChain([Choice.of(STEP_CACHES, large("easycache"))], net, 5)
    for step in range(5):
        x = torch.full((1, 2, 1, 2, 2), 1.0 + 0.1 * step)
        call = DenoiserCall(step, 5, net, net, x, torch.tensor([0.5]), (), {}, False)
        assert chain.predict(call).shape == x.shape
    assert chain._caches[0][1].report().skipped == (2, 3)


def test_the_trunk_is_its_first_block_and_the_rest() -> None:
    denoiser: Any = MMDiT(**TRANSFORMER_CONFIG).eval()
    assert isinstance(denoiser, ShowsChange)
    assert isinstance(denoiser, SplitsTrunk)
    text = [TextEmbedding(torch.randn(1, 3, 32), torch.ones(1, 3, dtype=torch.long))]
    with torch.no_grad():
        tokens = denoiser.embed(torch.randn(1, 16, 1, 4, 4), torch.tensor([500.0]), text, {})
        whole, split = denoiser.trunk(tokens), denoiser.rest(denoiser.first(tokens))
        norm = denoiser.transformer_blocks[0].norm1
        assert torch.equal(denoiser.probe(tokens), norm(tokens.video, tokens.text, tokens.temb)[0])
    assert torch.equal(whole.video, split.video)


@pytest.mark.feature("C053")
@pytest.mark.parametrize("name", list(CACHES))
def test_an_interrupted_run_goes_on_bit_by_bit(weights: Path, tmp_path: Path, name: str) -> None:
    assert isinstance(Choice.of(STEP_CACHES, CACHES[name]).create(), CacheMemory)
    engine = Engine(JobStore(tmp_path / "home"))
    options = {**large(name), **({"after": 0.4} if name == "cfg-gate" else {"threshold": 0.5})}
    request = GenerationRequest(
        **ASKED, weights=str(weights), step_caches=[options, *([] if name != "easycache" else [large("cfg-gate")])]
    )

    def submit(file: str) -> int:
        return engine.submit(request, output=str(tmp_path / file), snapshot_seconds=0).id

    (whole,) = engine.run(submit("whole.mp4"))
    number, cancel = submit("cut.mp4"), CancelToken()
    with pytest.raises(Cancelled):
        engine.run(number, events=EventBus(stopping(cancel, 3)), cancel=cancel)
    heard = Recorder()
    (made,) = engine.run(number, events=EventBus(heard))
    assert [event.index for event in heard if isinstance(event, Step)] == [4, 5]
    assert made.manifest is not None
    assert whole.manifest is not None
    assert made.manifest.digests == whole.manifest.digests
    assert made.manifest.notes["step_caches"] == whole.manifest.notes["step_caches"]


def stopping(cancel: CancelToken, index: int) -> Callable[[Event], None]:
    def hear(event: Event) -> None:
        if isinstance(event, Step) and event.index == index:
            cancel.cancel()

    return hear


def test_a_cache_of_its_own_kind_is_a_step_cache() -> None:
    from easyanimate_core.interfaces import StepCache

    cache: StepCache = TeaCache(TeaCacheOptions(coefficients=(1.0, 0.0)))
    assert cache.innermost
