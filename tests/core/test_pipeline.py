"""The pipeline: from a request to frames, with everything checked before weights are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from easyanimate_core.data import Geometry, State
from easyanimate_core.errors import (
    Cancelled,
    ConfigError,
    InvalidPlan,
    InvalidRequest,
)
from easyanimate_core.events import CancelToken, Event, EventBus, StageFinished, Step
from easyanimate_core.pipeline import Pipeline, load, run
from easyanimate_core.pipeline.guidance import guide, rescale
from easyanimate_core.request import GenerationRequest
from easyanimate_core.samplers.catalog import Flow
from easyanimate_core.samplers.options import FlowOptions
from easyanimate_core.testing import write_checkpoint
from recorder import PROMPT, SMALL, Recorder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return load("nano", weights=folder)


@pytest.fixture
def heard(pipe: Pipeline) -> Iterator[dict[str, list[torch.Tensor]]]:
    """What the modules of the pipeline were given: timesteps, token ids, and the first block's tokens at every step."""
    toolbox = pipe.prepare()
    calls: dict[str, list[torch.Tensor]] = {"timesteps": [], "tokens": [], "steps": []}
    time_embedding, text = toolbox.denoiser.time_embedding, toolbox.text_encoders[0]  # type: ignore[attr-defined]
    hooks = [
        time_embedding.register_forward_pre_hook(lambda _, given: calls["timesteps"].append(given[0])),
        toolbox.denoiser.transformer_blocks[0].register_forward_pre_hook(  # type: ignore[attr-defined]
            lambda _, given: calls["steps"].append(given[0])
        ),
        text.register_forward_pre_hook(lambda _, given: calls["tokens"].append(given[0])),  # type: ignore[attr-defined]
    ]
    yield calls
    for hook in hooks:
        hook.remove()


# --- what comes out --------------------------------------------------------------------------------


@pytest.mark.feature("C034", "C062")
def test_a_prompt_becomes_frames(pipe: Pipeline) -> None:
    video = pipe(prompt=PROMPT, frames=9, size=(64, 64), steps=4, seed=1)
    assert video.frames.shape == (1, 3, 9, 64, 64)
    assert video.frames.dtype == torch.float32
    assert 0 <= video.frames.min() < video.frames.max() <= 1
    assert video.fps == 8
    assert torch.equal(pipe(prompt=PROMPT, frames=9, size=(64, 64), steps=4, seed=1).frames, video.frames)


@pytest.mark.feature("C040")
def test_one_frame_is_a_picture(pipe: Pipeline, tmp_path: Path) -> None:
    video = pipe(**{**SMALL, "frames": 1})
    assert video.frames.shape == (1, 3, 1, 32, 48)
    path = video.save(tmp_path / "new" / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.feature("C062")
def test_seeds_decide_everything(pipe: Pipeline) -> None:
    first = pipe(**SMALL).frames
    torch.manual_seed(99)
    assert torch.equal(pipe(**SMALL).frames, first), "the global generator has no say"
    assert not torch.equal(pipe(**{**SMALL, "seed": 8}).frames, first)


@pytest.mark.feature("C062")
def test_a_sample_of_a_batch_equals_the_sample_alone(pipe: Pipeline) -> None:
    batch = pipe(**{**SMALL, "prompt": (PROMPT, "a green star"), "videos_per_prompt": 2})
    assert batch.frames.shape[0] == 4
    assert batch.notes["seeds"] == [7, 8, 9, 10]
    for i, (prompt, seed) in enumerate([(PROMPT, 7), (PROMPT, 8), ("a green star", 9), ("a green star", 10)]):
        alone = pipe(**{**SMALL, "prompt": prompt, "seed": seed}).frames
        torch.testing.assert_close(batch.frames[i], alone[0], rtol=0, atol=1e-5)


def test_a_drawn_seed_is_recorded(pipe: Pipeline) -> None:
    video = pipe(**{**SMALL, "seed": None})
    again = pipe(**{**SMALL, "seed": video.notes["seeds"][0]})
    assert torch.equal(again.frames, video.frames)


def test_notes_hold_the_complete_request(pipe: Pipeline) -> None:
    noted = GenerationRequest.model_validate(pipe(**SMALL).notes["request"])
    assert (noted.steps, noted.guidance, noted.fps) == (2, 4.0, 8)


def test_the_prompt_matters(pipe: Pipeline) -> None:
    assert not torch.equal(pipe(**SMALL).frames, pipe(**{**SMALL, "prompt": "红色的圆"}).frames)


def test_scale_repeats_pixels(pipe: Pipeline) -> None:
    plain, large = pipe(**SMALL).frames, pipe(**SMALL, scale=3).frames
    assert large.shape[-2:] == (96, 144)
    for dy, dx in ((0, 0), (1, 2), (2, 2)):
        assert torch.equal(large[..., dy::3, dx::3], plain)


@pytest.mark.feature("C039")
def test_sizes_are_rounded_down_with_a_notice(pipe: Pipeline) -> None:
    heard = Recorder()
    video = pipe(**{**SMALL, "size": (47, 70)}, events=EventBus(heard))
    assert video.frames.shape[-2:] == (32, 64)
    assert heard.notices == ["the size 47x70 becomes 32x64: sides are multiples of 16 pixels"]


@pytest.mark.feature("C041")
@pytest.mark.parametrize(("asked", "made"), [(1, 1), (2, 1), (4, 1), (5, 5), (6, 5), (17, 17)])
def test_frames_are_rounded_to_the_vae_with_a_notice(pipe: Pipeline, asked: int, made: int) -> None:
    heard = Recorder()
    video = pipe(**{**SMALL, "size": (16, 16), "steps": 1, "frames": asked}, events=EventBus(heard))
    assert video.frames.shape[2] == made
    assert len(heard.notices) == (asked != made)


@pytest.mark.feature("C041")
def test_the_rounding_table(pipe: Pipeline) -> None:
    compression = pipe.prepare().vae.compression
    asked = (1, 2, 4, 5, 6, 48, 49, 50)
    assert [compression.round_frames(frames) for frames in asked] == [1, 1, 1, 5, 5, 45, 49, 49]


# --- guidance --------------------------------------------------------------------------------------


@pytest.mark.feature("C007")
def test_guidance_doubles_the_batch_and_1_turns_it_off(pipe: Pipeline, heard: dict[str, list[torch.Tensor]]) -> None:
    pipe(**SMALL, guidance=6)
    assert [len(t) for t in heard["timesteps"]] == [2, 2]
    heard["timesteps"].clear()
    pipe(**SMALL, guidance=1)
    assert [len(t) for t in heard["timesteps"]] == [1, 1]


@pytest.mark.feature("C007")
def test_text_is_encoded_once_per_run(pipe: Pipeline, heard: dict[str, list[torch.Tensor]]) -> None:
    pipe(**{**SMALL, "steps": 4}, guidance=6)
    assert len(heard["tokens"]) == 2, "the prompt and the negative prompt"
    heard["tokens"].clear()
    pipe(**{**SMALL, "steps": 4, "videos_per_prompt": 2}, guidance=1)
    assert len(heard["tokens"]) == 1, "the prompt alone"


@pytest.mark.feature("C007")
def test_the_negative_prompt_works_only_with_guidance(pipe: Pipeline) -> None:
    def made(guidance: float, negative: str) -> torch.Tensor:
        return pipe(**SMALL, guidance=guidance, negative_prompt=negative).frames

    assert not torch.equal(made(6, "blurry"), made(6, "red"))
    assert torch.equal(made(1, "blurry"), made(1, "red"))
    default = pipe(**SMALL, guidance=6).frames
    assert torch.equal(default, made(6, pipe.preset.defaults.negative_prompt))


@pytest.mark.feature("C007")
def test_guidance_moves_away_from_the_first_half() -> None:
    unguided, conditional = torch.randn(2, 3, 1, 2, 2).chunk(2)
    both = torch.cat([unguided, conditional])
    assert torch.equal(guide(both, 1.0), unguided + (conditional - unguided))
    torch.testing.assert_close(guide(both, 6.0), 6 * conditional - 5 * unguided)


@pytest.mark.feature("C032")
def test_rescaling_matches_the_deviation_per_sample() -> None:
    conditional = torch.randn(2, 4, 2, 4, 4)
    guided = conditional * torch.tensor([3.0, 0.5]).reshape(2, 1, 1, 1, 1) + 0.1
    dims = (1, 2, 3, 4)
    torch.testing.assert_close(rescale(guided, conditional, 1.0).std(dim=dims), conditional.std(dim=dims))
    both = torch.cat([torch.zeros_like(guided), conditional])
    assert torch.equal(guide(both, 3.0, rescaled=0.0), guide(both, 3.0))
    half = rescale(guided, conditional, 0.5)
    torch.testing.assert_close(half, (guided + rescale(guided, conditional, 1.0)) / 2)


@pytest.mark.feature("C032")
def test_rescaling_reaches_the_frames(pipe: Pipeline) -> None:
    plain = pipe(**SMALL, guidance=8).frames
    assert torch.equal(pipe(**SMALL, guidance=8, guidance_rescale=0).frames, plain)
    assert not torch.equal(pipe(**SMALL, guidance=8, guidance_rescale=0.7).frames, plain)


# --- numbers of the loop ---------------------------------------------------------------------------


@pytest.mark.feature("C030")
def test_timesteps_are_rounded_to_the_dtype_of_the_loop(folder: Path) -> None:
    pipe = load("nano", weights=folder, dtype="bfloat16")
    seen: list[float] = []
    time_embedding: nn.Module = pipe.prepare().denoiser.time_embedding  # type: ignore[attr-defined]
    time_embedding.register_forward_pre_hook(lambda _, given: seen.append(float(given[0][0])))
    video = pipe(**{**SMALL, "size": (16, 16), "frames": 1, "steps": 50})
    assert seen[:6] == [1000, 992, 984, 976, 968, 960]
    assert video.frames.isfinite().all()
    assert video.frames.dtype == torch.float32


def test_the_checkpoint_decides_the_sampler_and_the_request_what_it_says(
    pipe: Pipeline, heard: dict[str, list[torch.Tensor]]
) -> None:
    def timesteps(**settings: Any) -> list[float]:
        heard["timesteps"].clear()
        pipe(**{**SMALL, "steps": 3}, **settings)
        return [round(float(t[0]), 1) for t in heard["timesteps"]]

    stored = timesteps()
    assert stored == timesteps(sampler="flow"), "dynamic shifting, as scheduler_config.json says"
    assert stored == timesteps(sampler={"name": "flow", "shift": 9.0}), "which ignores shift"
    shifted = timesteps(sampler={"name": "flow", "use_dynamic_shifting": False})
    want = Flow(FlowOptions(shift=3.0)).schedule(3).timesteps
    assert shifted == [round(float(t), 1) for t in want], "shift 3 is still the checkpoint's"


class Doubled:
    """A denoiser that predicts its own uncertainty in further channels, as those with learned variance do."""

    def __init__(self, denoiser: Any) -> None:
        self.inlets, self.embed, self.trunk = denoiser.inlets, denoiser.embed, denoiser.trunk
        self.plain_head = denoiser.head

    def head(self, tokens: Any) -> torch.Tensor:
        prediction: torch.Tensor = self.plain_head(tokens)
        return torch.cat([prediction, torch.full_like(prediction, torch.nan)], dim=1)


def test_further_channels_of_a_prediction_are_dropped(pipe: Pipeline) -> None:
    request = pipe.complete(**SMALL)
    toolbox = pipe.prepare()
    doubled = replace(toolbox, denoiser=Doubled(toolbox.denoiser))
    state = State(request, Geometry(32, 48, 5))
    plain, other = (run(pipe.plan(request), state, t).video for t in (toolbox, doubled))
    assert plain is not None
    assert other is not None
    assert torch.equal(plain.frames, other.frames)


def test_a_state_may_bring_its_own_latents_and_embeddings(pipe: Pipeline, heard: dict[str, list[torch.Tensor]]) -> None:
    request = pipe.complete(**SMALL)
    events = Recorder()
    toolbox = replace(pipe.prepare(), events=EventBus(events))
    text = toolbox.text_encoders[0].encode([PROMPT])
    heard["tokens"].clear()
    latents = torch.randn(toolbox.vae.compression.latent_shape(Geometry(32, 48, 5)))
    state = State(request, Geometry(32, 48, 5), text=(text,), negative_text=(text,), latents=latents)
    assert run(pipe.plan(request), state, toolbox).video is not None
    assert events.stages == ["condition", "denoise", "decode"]
    assert heard["tokens"] == []


def test_guidance_without_a_negative_embedding_is_an_error(pipe: Pipeline) -> None:
    toolbox = pipe.prepare()
    text = toolbox.text_encoders[0].encode([PROMPT])
    request = pipe.complete(**SMALL)
    with pytest.raises(InvalidPlan, match="negative prompt"):
        run(pipe.plan(request), State(request, Geometry(32, 48, 5), text=(text,)), toolbox)


def test_stages_want_a_completed_request(pipe: Pipeline) -> None:
    request = GenerationRequest(prompt=PROMPT, seed=0)
    with pytest.raises(InvalidRequest, match="'steps' open"):
        run(pipe.plan(request), State(request, Geometry(32, 48, 5)), pipe.prepare())


# --- events and cancelling -------------------------------------------------------------------------


@pytest.mark.feature("C031")
def test_every_stage_and_every_step_is_heard(folder: Path) -> None:
    heard = Recorder()
    load("nano", weights=folder)(**{**SMALL, "steps": 3}, events=EventBus(heard))
    assert heard.stages == ["load", "encode_text", "condition", "noise", "denoise", "decode"]
    assert [e.stage for e in heard if isinstance(e, StageFinished)] == heard.stages
    assert [(e.index, e.total) for e in heard if isinstance(e, Step)] == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.feature("C031")
def test_a_step_can_be_looked_at(pipe: Pipeline) -> None:
    previews: list[torch.Tensor] = []

    def look(event: Event) -> None:
        if isinstance(event, Step) and event.preview is not None:
            previews.append(event.preview())

    video = pipe(**SMALL, events=EventBus(look))
    assert [tuple(preview.shape) for preview in previews] == [(3, 5, 32, 48)] * 2
    torch.testing.assert_close(previews[-1], video.frames[0])


@pytest.mark.feature("C031")
def test_cancelling_stops_further_forwards(pipe: Pipeline, heard: dict[str, list[torch.Tensor]]) -> None:
    cancel = CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.index == 1:
            cancel.cancel()

    with pytest.raises(Cancelled):
        pipe(**{**SMALL, "steps": 10}, events=EventBus(stop), cancel=cancel)
    assert len(heard["steps"]) == 2
    assert pipe(**SMALL).frames.isfinite().all(), "the pipeline goes on afterwards"


def test_a_run_cancelled_before_it_starts_reads_no_weights(folder: Path) -> None:
    cancel, heard = CancelToken(), Recorder()
    cancel.cancel()
    with pytest.raises(Cancelled):
        load("nano", weights=folder)(**SMALL, events=EventBus(heard), cancel=cancel)
    assert heard.stages == []


# --- requests that cannot be ----------------------------------------------------------------------


@pytest.mark.feature("C039")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": (8, 64)}, "8"),
        ({"size": (64, 512)}, "512"),
        ({"frames": 49}, "49"),
        ({"frames": 0}, "frames"),
        ({"steps": 0}, "steps"),
        ({"guidance": 0.5}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance_rescale": 2}, "guidance_rescale"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": ()}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"sampler": "eular"}, "eular"),
        ({"sampler": {"name": "flow", "shfit": 3}}, "shfit"),
        ({"hight": 3}, "hight"),
        ({"model": "v5.1-7b"}, "v5.1-7b"),
        ({"model": "v9"}, "v9"),
    ],
)
def test_impossible_requests_are_refused_before_weights_are_read(
    folder: Path, settings: dict[str, Any], said: str
) -> None:
    heard = Recorder()
    with pytest.raises(ConfigError) as caught:
        load("nano", weights=folder)(**{**SMALL, **settings}, events=EventBus(heard))
    assert said in str(caught.value)
    assert "\n" not in caught.value.message
    assert heard == []


def test_a_request_and_settings_exclude_each_other(pipe: Pipeline) -> None:
    with pytest.raises(InvalidRequest, match="'steps'"):
        pipe(GenerationRequest(prompt=PROMPT), steps=3)


def test_a_request_without_a_model_is_for_the_pipeline_at_hand(pipe: Pipeline) -> None:
    assert pipe.complete(GenerationRequest(prompt=PROMPT)).model == "nano"
