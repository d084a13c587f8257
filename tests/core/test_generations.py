"""Every generation from the command line, on tiny checkpoints in the released layout: words, pictures, memory, LoRA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from easyanimate_core.checkpoints.lora import LoraFile, LowRank, linear_names, write_lora
from easyanimate_core.cli.main import run
from easyanimate_core.conditioning.picture import picture_condition
from easyanimate_core.data import Condition, Inlet, State, wire
from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions, InvalidRequest
from easyanimate_core.interfaces import Toolbox
from easyanimate_core.media.read import read_image, read_video
from easyanimate_core.offload.blocks import parts_of
from easyanimate_core.offload.pack import tensors_of
from easyanimate_core.pipeline import Pipeline, load
from easyanimate_core.pipeline.denoise import Denoise
from easyanimate_core.pipeline.fit import whole_frames
from easyanimate_core.presets import find_preset
from easyanimate_core.presets.model import Settings
from easyanimate_core.testing.tiny import (
    write_motion_module,
    write_v1_checkpoint,
    write_v2_checkpoint,
    write_v3_checkpoint,
    write_v4_checkpoint,
    write_v5_checkpoint,
)

PROMPT = "a red circle moving right on a blue background"
WRITERS: dict[str, Callable[[Path], Path]] = {
    "v1": write_v1_checkpoint,
    "v1-image": write_v1_checkpoint,
    "v2-512": write_v2_checkpoint,
    "v3-512": write_v3_checkpoint,
    "v4-inp": write_v4_checkpoint,
    "v5-7b": write_v5_checkpoint,
    "v5-7b-inp": partial(write_v5_checkpoint, in_channels=33),
}
# What is asked for, and how many frames there will be: each VAE has its own rule.
SIZES = {"v1": ("384x384", 2), "v1-image": ("384x384", 1), "v5-7b": ("128x128", 5), "v5-7b-inp": ("128x128", 5)}
MADE = {"v1": 2, "v1-image": 1, "v2-512": 9, "v3-512": 8, "v4-inp": 8, "v5-7b": 5, "v5-7b-inp": 5}
IMAGE_TO_VIDEO = ("v3-512", "v4-inp", "v5-7b-inp")
PLACES = {"v1": "model", "v2-512": "group", "v3-512": "sequential", "v4-inp": "stream", "v5-7b-inp": "model"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generations")


def weights_of(model: str, home: Path) -> Path:
    folder = home / model
    if not folder.exists():
        WRITERS[model](folder)
        write_motion_module(home / "easyanimate_v1_mm.safetensors")
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(home / "cat.png")
    return folder


def generated(model: str, home: Path, *flags: str, steps: int = 2) -> np.ndarray[Any, Any]:
    """Run `easyanimate generate`: the frames `(F, H, W, 3)` that it wrote."""
    weights, (size, frames) = weights_of(model, home), SIZES.get(model, ("128x128", 9))
    name = "-".join([model, *(flag.strip("-").split("/")[-1] for flag in flags), str(steps)])
    target = home / f"{name}.{'png' if frames == 1 else 'mp4'}"
    if not target.exists():
        line = ["generate", PROMPT, "--model", model, "--weights", str(weights), "--output", str(target)]
        line += ["--size", size, "--frames", str(frames), "--steps", str(steps), "--seed", "3"]
        if model == "v1":
            line += ["--motion-path", str(home / "easyanimate_v1_mm.safetensors")]
        assert run([*line, *flags]) == 0
    return read_image(str(target))[None] if frames == 1 else read_video(str(target))[0]


def lora_of(model: str, home: Path) -> Path:
    path = home / f"{model}.safetensors"
    denoiser: Any = load(model, weights=weights_of(model, home), **motion(model, home)).prepare().denoiser
    generator = torch.Generator().manual_seed(0)
    layers = {
        ("denoiser", name): LowRank(
            torch.randn(2, layer.in_features, generator=generator),
            torch.randn(layer.out_features, 2, generator=generator),
            2.0,
        )
        for name in linear_names(denoiser)
        if isinstance(layer := denoiser.get_submodule(name), torch.nn.Linear)
    }
    return write_lora(LoraFile(path, "diffusers", layers, {}, 0), path, "kohya")


def motion(model: str, home: Path) -> dict[str, Any]:
    return {"motion_path": home / "easyanimate_v1_mm.safetensors"} if model == "v1" else {}


@pytest.mark.feature("C034", "C037", "C038", "C040", "C041", "C057")
@pytest.mark.parametrize("model", WRITERS)
def test_words_to_a_video_or_a_picture(model: str, home: Path) -> None:
    frames = generated(model, home)
    side = int(SIZES.get(model, ("128x128", 9))[0].split("x")[0])
    assert frames.shape == (MADE[model], side, side, 3)
    assert frames.std() > 0


@pytest.mark.feature("C041")
@pytest.mark.parametrize(("model", "run"), [("v2-512", 9), ("v3-512", 8), ("v4-inp", 8)])
def test_fewer_frames_than_a_run_of_the_vae_are_refused(model: str, run: int, home: Path) -> None:
    """Rounded down there are none; only one frame, a picture, is made by itself."""
    pipe = load(model, weights=weights_of(model, home))
    preset, compression = find_preset(model), pipe.prepare().vae.compression
    assert [whole_frames(n, preset, compression) for n in (1, run, run + 1, 144)] == [1, run, run, 144]
    for frames in (2, run - 1):
        with pytest.raises(InvalidRequest, match=f"'{frames}' frames are too few") as refused:
            pipe(prompt=PROMPT, size="128x128", frames=frames, steps=1)
        assert refused.value.hint == f"Ask for 1, a picture, or for {run} or more."


@pytest.mark.feature("C009", "C012", "C022", "C024", "C058")
@pytest.mark.parametrize("model", WRITERS)
def test_a_whole_folder_is_verified(model: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["checkpoint", "verify", str(weights_of(model, home)), "--model", model]
    if model == "v1":
        assert run(line) == 3
        assert "V1 has a motion module for it: --motion-path FILE" in capsys.readouterr().err
        line += ["--motion-path", str(home / "easyanimate_v1_mm.safetensors")]
    assert run(line) == 0
    said = capsys.readouterr().out.splitlines()
    assert all(part.startswith("ok ") for part in said)
    preset = find_preset(model).components
    assert any("transformer: " in part and f"fit '{preset.denoiser}'" in part for part in said)
    assert any("vae: " in part and f"fit '{preset.vae}'" in part for part in said)


@pytest.mark.feature("C016", "C035")
@pytest.mark.parametrize("model", IMAGE_TO_VIDEO)
def test_a_picture_to_a_video(model: str, home: Path) -> None:
    weights_of(model, home)
    started = generated(model, home, "--start-image", str(home / "cat.png"))
    assert not np.array_equal(started, generated(model, home))


@pytest.mark.feature("C016")
@pytest.mark.parametrize("model", ["v3-512", "v4-inp"])
def test_the_picture_is_also_shown_as_a_whole_late_in_the_run(model: str, home: Path) -> None:
    """In the last 40 % of the steps: one of three, none of two."""
    weights = weights_of(model, home)
    pipe, (_, frames) = load(model, weights=weights), ("", 8)

    def made(steps: int, **options: Any) -> torch.Tensor:
        start = {"name": "frames", "start": str(home / "cat.png"), "noise": 0, **options}
        asked: dict[str, Any] = {"size": "128x128", "frames": frames, "steps": steps, "seed": 3, "conditions": [start]}
        return pipe(prompt=PROMPT, **asked).frames

    assert torch.equal(made(2), made(2, show=False))
    assert not torch.equal(made(3), made(3, show=False))


@pytest.mark.feature("C037")
def test_a_picture_by_an_image_model_that_is_told_its_size_with_a_video_vae(home: Path, tmp_path: Path) -> None:
    """The original's pipeline for pictures: PixArt, of the kind for 1024 pixels, with V2's VAE."""
    folder = write_v1_checkpoint(tmp_path / "pixart", vae="v2", sample_size=128)
    still = find_preset("v1-image")
    preset = still.model_copy(update={"components": still.components.model_copy(update={"vae": "magvit"})})
    pipe = load(preset, weights=folder)
    asked: dict[str, Any] = {"prompt": PROMPT, "size": "384x512", "steps": 2, "seed": 3}
    assert pipe(**asked).frames.shape == (1, 3, 1, 384, 512)
    told: list[Tensor] = []
    denoiser: Any = pipe.prepare().denoiser
    denoiser.adaln_single.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    pipe(**asked)
    assert all(size.tolist() == [[384.0, 512.0]] * 2 for size in told)


@pytest.mark.feature("C033", "C035")
@pytest.mark.parametrize("sampler", ["euler", "euler-a", "dpm++", "pndm", "ddim"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_a_text_model_keeps_what_is_not_masked_with_every_sampler(sampler: str, strength: float, home: Path) -> None:
    """The original does so too, but for flow matching, where it fails; see test_source_video.py."""
    pipe = load("v5-7b", weights=weights_of("v5-7b", home))
    mask = np.zeros((128, 128), dtype=np.uint8)
    mask[:, 64:] = 255
    video = np.random.default_rng(1).integers(0, 255, (5, 128, 128, 3), dtype=np.uint8)
    source = {"name": "source-video", "video": video, "mask": mask, "strength": strength}
    asked: dict[str, Any] = {
        "size": "128x128",
        "frames": 5,
        "steps": 5,
        "seed": 3,
        "sampler": sampler,
        "conditions": [source],
    }
    request, tools = pipe.complete(prompt=PROMPT, **asked), pipe.prepare()
    plan = pipe.plan(request)
    plan.drop("decode")
    state = pipe.walk(request, plan)
    assert state.latents is not None
    kept = tools.vae.encode_video(torch.from_numpy(video).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1)
    torch.testing.assert_close(state.latents[..., 0], kept[..., 0], msg="the last step leaves it clean")
    assert not torch.allclose(state.latents[..., -1], kept[..., -1])


@pytest.mark.feature("C050")
@pytest.mark.parametrize("model", ["v3-512", "v5-7b"])
def test_float16_computes_in_float32_where_it_would_overflow(model: str, home: Path) -> None:
    tools = load(model, weights=weights_of(model, home), dtype="float16").prepare()
    denoiser, vae = tools.denoiser, tools.vae
    assert vae.config.upcast_vae  # type: ignore[attr-defined]
    assert getattr(denoiser.config, "upcast_attention", None) == (True if model == "v3-512" else None)  # type: ignore[attr-defined]
    usual: Any = load(model, weights=weights_of(model, home)).prepare().vae
    assert not usual.config.upcast_vae


def test_every_text_encoder_has_the_length_that_its_tokenizer_says(home: Path) -> None:
    """Padding is hidden from V4's encoders and read by V5's."""
    found = {}
    for model in ("v3-512", "v4-inp", "v5-7b"):
        encoders: Any = load(model, weights=weights_of(model, home)).prepare().text_encoders
        found[model] = [(encoder.max_length, encoder.masked) for encoder in encoders]
    assert found == {
        "v3-512": [(24, True)],
        "v4-inp": [(16, True), (24, True)],
        "v5-7b": [(16, False), (24, False)],
    }


@pytest.mark.feature("C047", "C049", "C054")
@pytest.mark.parametrize(("model", "place"), PLACES.items())
def test_a_lora_with_weights_elsewhere_gives_what_it_gives_with_all_of_them_here(
    model: str, place: str, home: Path
) -> None:
    lora = ("--lora", str(lora_of(model, home)))
    here = generated(model, home, *lora, "--offload", "resident")
    assert not np.array_equal(here, generated(model, home))
    assert np.array_equal(generated(model, home, *lora, "--offload", place), here)


@pytest.mark.feature("C053")
@pytest.mark.parametrize("model", ["v1", "v2-512", "v3-512", "v4-inp"])
def test_step_caches_look_into_the_denoisers_of_all_generations(model: str, home: Path) -> None:
    size, frames = SIZES.get(model, ("128x128", 9))
    asked: dict[str, Any] = {"prompt": PROMPT, "size": size, "frames": frames, "steps": 4, "seed": 3}
    pipe = load(model, weights=weights_of(model, home), **motion(model, home))

    def latents(pipe: Pipeline, *caches: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        request = pipe.complete(**asked, step_caches=caches)
        plan = pipe.plan(request)
        plan.drop("decode")
        state = pipe.walk(request, plan)
        assert state.latents is not None
        return state.latents, {name: made["skipped"] for name, made in state.notes.get("step_caches", {}).items()}

    plain, _ = latents(pipe)
    streamed = load(model, weights=weights_of(model, home), **motion(model, home), offload="stream")
    for name, said in (("first-block", {}), ("teacache", {"coefficients": [1.0, 0.0]})):
        exact = {"name": name, "threshold": 0.0, **said}
        assert torch.equal(latents(pipe, exact)[0], plain)
        assert torch.equal(latents(streamed, exact)[0], plain)
        skipping, skipped = latents(pipe, {**exact, "threshold": 10.0})
        assert skipped == {name: [1, 2]}
        assert not torch.equal(skipping, plain)
    with pytest.raises(InvalidRequest, match=f"no coefficients of 'teacache' for the model '{model}'") as refused:
        pipe.complete(**asked, step_caches=["teacache"])
    assert "known for: v5.1-7b" in refused.value.hint
    denoiser: Any = pipe.prepare().denoiser
    steady = {id(tensor) for tensor in tensors_of(*denoiser.steady_modules())}
    assert steady <= {id(tensor) for tensor in parts_of(denoiser).rest}, "what is looked at does not come and go"


def test_a_picture_is_shown_from_six_tenths_of_any_number_of_steps_on() -> None:
    """The original asks `i ≥ 0.6·n`."""
    inlet, latents = Inlet("image_tokens", "tokens", 2), torch.zeros(1, 4, 1, 1, 1)
    condition = Condition("image_tokens", torch.ones(1, 3, 2), active=(0.6, 1.0))
    for n in range(1, 61):
        shown = [i for i in range(n) if wire([inlet], [condition], latents, progress=i / n)]
        assert shown == [i for i in range(n) if i >= 0.6 * n]


@pytest.mark.feature("C029")
def test_noise_of_later_steps_is_not_that_which_the_run_starts_from(home: Path) -> None:
    pipe = load("v5-7b", weights=weights_of("v5-7b", home))
    request = pipe.complete(prompt=PROMPT, size="128x128", frames=1, steps=1, seed=3, sampler="euler-a")
    drawn: list[Tensor] = []

    class Drawing(Denoise):
        def __call__(self, state: State, toolbox: Toolbox) -> State:
            noise, step = state.latents, toolbox.sampler.step
            assert noise is not None

            def watched(*arguments: Any, generator: Any) -> Tensor:
                again = torch.Generator("cpu").set_state(generator[0].get_state())
                drawn.extend([noise, torch.randn(noise.shape, generator=again)])
                return step(*arguments, generator=generator)

            toolbox.sampler.step = watched  # type: ignore[method-assign, assignment]
            return super().__call__(state, toolbox)

    plan = pipe.plan(request)
    plan.replace("denoise", Drawing())
    plan.drop("decode")
    pipe.walk(request, plan)
    begun, later = drawn
    assert not torch.equal(begun, later)


def test_a_setting_of_a_preset_stands_above_the_config_and_has_to_be_one_of_the_model(home: Path) -> None:
    folder, still = weights_of("v1-image", home), find_preset("v1-image")
    denoiser: Any = load(still, weights=folder).prepare().denoiser
    assert denoiser.config.basic_block_type == "basic"
    wrong = still.model_copy(update={"settings": Settings(denoiser={"basic_blok_type": "basic"})})
    with pytest.raises(CheckpointMismatch, match="sets 'basic_blok_type' to 'basic'"):
        load(wrong, weights=folder).prepare()


@pytest.mark.feature("C035", "C069")
@pytest.mark.parametrize(("model", "told"), [("v3-512", True), ("v4-inp", False)])
def test_with_words_alone_v3_is_told_that_nothing_is_known_and_v4_nothing(model: str, told: bool, home: Path) -> None:
    """V3 never saw zeros there: it gets the encoding of a mask of ones, and of a video that is hidden all over."""
    pipe = load(model, weights=weights_of(model, home))
    request = pipe.complete(prompt=PROMPT, size="128x128", frames=8, seed=3)
    plan = pipe.plan(request)
    for stage in ("encode_text", "noise", "denoise", "decode"):
        plan.drop(stage)
    made = {condition.inlet: condition.value for condition in pipe.walk(request, plan).conditions}
    assert set(made) == ({"mask", "masked_video"} if told else set())
    if told:
        vae, hidden = pipe.prepare().vae, torch.ones(1, 3, 8, 128, 128)
        assert torch.equal(made["mask"], vae.encode_video(hidden))
        assert torch.equal(made["masked_video"], vae.encode_video(-hidden))


def test_a_model_without_an_image_encoder_is_not_shown_pictures(home: Path) -> None:
    pipe = load("v5-7b", weights=weights_of("v5-7b", home))
    with pytest.raises(IncompatibleConditions, match="no inlet 'image_tokens' for 'clip-image'"):
        pipe(prompt=PROMPT, conditions=[{"name": "clip-image", "image": np.zeros((8, 8, 3), dtype=np.uint8)}])
    with pytest.raises(IncompatibleConditions, match="no image encoder"):
        picture_condition(torch.zeros(3, 8, 8), pipe.prepare())
