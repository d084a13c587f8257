"""Given frames and videos: what reaches the denoiser, what may be given, and what is refused before weights load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from easyanimate_core.conditioning.draws import draw_level, draw_noise
from easyanimate_core.conditioning.frames import known_frames
from easyanimate_core.conditioning.inpaint import HIDDEN, Known, augment, inpaint_conditions, mask_out
from easyanimate_core.conditioning.masks import hidden_where_white
from easyanimate_core.conditioning.options import FramesOptions, SourceVideoOptions
from easyanimate_core.conditioning.pixels import read_picture
from easyanimate_core.data import Condition, Geometry, Inpainting, State
from easyanimate_core.errors import (
    EasyAnimateError,
    IncompatibleConditions,
    InvalidRequest,
    UnreadableMedia,
)
from easyanimate_core.events import EventBus
from easyanimate_core.pipeline import Pipeline
from easyanimate_core.request import GenerationRequest
from inpainting import SMALL, clip, inpainter, painter, picture, said
from recorder import PROMPT, Recorder

SIZE = Geometry(32, 48, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inp")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return inpainter(folder)


@pytest.fixture
def given(pipe: Pipeline) -> Iterator[list[Tensor]]:
    """What the denoiser's first layer reads, `(2·B·f, 33, h, w)`, call by call."""
    seen: list[Tensor] = []
    proj = pipe.prepare().denoiser.proj  # type: ignore[attr-defined]
    hook = proj.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    yield seen
    hook.remove()


def conditions(pipe: Pipeline, *said: dict[str, Any], **settings: Any) -> tuple[Condition, ...]:
    request = pipe.complete(**{**SMALL, **settings}, conditions=said)
    geometry = replace(SIZE, batch=request.batch)
    return request.conditions[0].create().encode(State(request, geometry), pipe.prepare())


# --- given frames ----------------------------------------------------------------------------------


@pytest.mark.feature("C035", "C069")
def test_a_start_picture_is_the_vaes_encoding_beside_a_mask(pipe: Pipeline) -> None:
    mask, video = conditions(pipe, said("frames", start=picture(), noise=0))
    assert (mask.inlet, video.inlet) == ("mask", "masked_video")
    pixels = torch.full((1, 3, 5, 32, 48), HIDDEN)
    pixels[:, :, 0] = torch.from_numpy(picture()).movedim(-1, 0).float() / 255 * 2 - 1
    torch.testing.assert_close(video.value, pipe.prepare().vae.encode_video(pixels))
    # Known is 1, in the scale of the latents.
    assert torch.equal(mask.value[0, 0, 0], torch.full((4, 6), 0.7125))
    assert not mask.value[0, 0, 1].any()


@pytest.mark.feature("C035")
def test_an_end_picture_shows_in_the_video_and_not_in_the_mask(pipe: Pipeline) -> None:
    start = conditions(pipe, said("frames", start=picture(), noise=0))
    both = conditions(pipe, said("frames", start=picture(), end=picture(1), noise=0))
    assert torch.equal(start[0].value, both[0].value), "the mask samples between frames, and misses the last one"
    assert torch.equal(start[1].value[:, :, 0], both[1].value[:, :, 0])
    assert not torch.equal(start[1].value[:, :, 1], both[1].value[:, :, 1])


@pytest.mark.feature("C044")
def test_several_frames_at_both_ends() -> None:
    frames = [torch.full((3, 2, 2), i / 10) for i in range(5)]
    known = known_frames(frames[:2], frames[3:], 6)
    assert known.pixels[0, 0, :, 0, 0].tolist() == pytest.approx([0, 0.1, 0, 0, 0.3, 0.4])
    assert known.hidden[0, 0, :, 0, 0].tolist() == [0, 0, 1, 1, 0, 0]
    with pytest.raises(InvalidRequest, match="'4' pictures for the start and 1 for the end do not fit into 4"):
        known_frames(frames[:4], frames[4:], 4)


@pytest.mark.feature("C035", "C038", "C069")
def test_without_frames_the_same_model_makes_text_to_video(pipe: Pipeline, given: list[Tensor]) -> None:
    assert pipe(**SMALL).frames.shape == (1, 3, 5, 32, 48)
    assert given[0].shape[1] == 33
    assert not given[0][:, 16:].any()


@pytest.mark.feature("C035", "C069")
def test_a_mask_that_hides_everything_is_no_condition(pipe: Pipeline) -> None:
    white = np.full((32, 48), 255, dtype=np.uint8)
    assert conditions(pipe, said("frames", video=clip(5), mask=white)) == ()
    made = pipe(**SMALL, conditions=[said("frames", video=clip(5), mask=white)])
    assert torch.equal(made.frames, pipe(**SMALL).frames)


@pytest.mark.feature("C069")
def test_older_checkpoints_encode_the_mask_as_a_video(pipe: Pipeline) -> None:
    class Older:
        """A denoiser with 4 + 4 or 16 + 16 channels beside its latents, as before V5."""

        inlets = ()
        inpainting = Inpainting(mask="encoded", blank=False)

    request = pipe.complete(**SMALL)
    toolbox = replace(pipe.prepare(), denoiser=Older())  # type: ignore[arg-type]
    known = Known(torch.zeros(1, 3, 5, 32, 48), torch.ones(1, 1, 5, 32, 48))
    mask, video = inpaint_conditions(known, State(request, SIZE), toolbox, noise=0.05)
    assert mask.value.shape == video.value.shape == (1, 16, 2, 4, 6)
    assert torch.equal(mask.value, toolbox.vae.encode_video(torch.ones(1, 3, 5, 32, 48)))


@pytest.mark.feature("C035")
def test_the_picture_matters_and_a_path_is_the_same_picture(pipe: Pipeline, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "start.png")

    def made(start: Any) -> Tensor:
        return pipe(**SMALL, conditions=[said("frames", start=start)]).frames

    by_path = made(tmp_path / "start.png")
    assert torch.equal(by_path, made(picture()))
    assert torch.equal(by_path, made(Image.open(tmp_path / "start.png")))
    assert torch.equal(by_path, made(torch.from_numpy(picture()).movedim(-1, 0)))
    assert torch.equal(by_path, made([picture()]))
    assert not torch.equal(by_path, made(picture(1)))


@pytest.mark.feature("C035")
def test_a_region_of_a_video_is_kept(pipe: Pipeline, tmp_path: Path) -> None:
    mask = np.zeros((32, 48), dtype=np.uint8)
    mask[:, 24:] = 255
    condition, video = conditions(pipe, said("frames", video=clip(5), mask=mask, noise=0))
    # Latent columns 0…2 are known in every frame.
    assert torch.equal(condition.value[0, 0, :, :, 0], torch.full((2, 4), 0.7125))
    assert not condition.value[0, 0, :, :, 5].any()
    moving = np.repeat(mask[None], 5, axis=0)
    as_video = conditions(pipe, said("frames", video=clip(5), mask=moving, noise=0))
    assert torch.equal(as_video[1].value, video.value)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    by_path = conditions(pipe, said("frames", video=clip(5), mask=str(tmp_path / "mask.png"), noise=0))
    assert torch.equal(by_path[1].value, video.value)


@pytest.mark.feature("C044")
def test_grey_below_240_is_kept() -> None:
    mask = np.array([[[0, 239, 240, 255]]], dtype=np.uint8)
    assert hidden_where_white(mask, 2, 1, 4)[0, 0].tolist() == [[[0, 0, 1, 1]]] * 2
    assert hidden_where_white(mask.astype(np.float32) / 255, 1, 1, 4).flatten().tolist() == [0, 0, 1, 1]


@pytest.mark.feature("C040")
def test_one_frame_from_a_picture(pipe: Pipeline) -> None:
    made = pipe(**{**SMALL, "frames": 1}, conditions=[said("frames", start=picture())])
    assert made.frames.shape == (1, 3, 1, 32, 48)


# --- noise and batches -----------------------------------------------------------------------------


@pytest.mark.feature("C068")
def test_black_and_hidden_pixels_get_no_noise() -> None:
    pixels = torch.rand(1, 3, 4, 64, 64)
    pixels[..., :8] = 0
    hidden = torch.zeros(1, 1, 4, 64, 64)
    hidden[:, :, 2:] = 1
    masked = mask_out(Known(pixels, hidden))
    added = augment(masked, torch.randn_like(masked), 0.0563) - masked
    assert not added[..., :8].any()
    assert not added[:, :, 2:].any()
    assert added[:, :, :2, :, 8:].std().item() == pytest.approx(0.0563, rel=0.02)


@pytest.mark.feature("C068")
def test_the_deviation_in_training_is_log_normal() -> None:
    level = draw_level(4096, torch.Generator().manual_seed(0))
    assert level.log().mean().item() == pytest.approx(-3, abs=0.05)
    assert level.log().std().item() == pytest.approx(0.5, abs=0.05)
    masked = torch.zeros(2, 3, 1, 64, 64)
    added = augment(masked, torch.randn_like(masked), torch.tensor([0.1, 0.4]))
    assert added.std(dim=(1, 2, 3, 4)).tolist() == pytest.approx([0.1, 0.4], rel=0.05)


@pytest.mark.feature("C068", "C062")
def test_noise_is_drawn_after_the_latents_from_the_samples_own_generator(pipe: Pipeline) -> None:
    toolbox = pipe.prepare()
    _, video = conditions(pipe, said("frames", start=picture()), seed=11)
    generator = torch.Generator().manual_seed(11)
    torch.randn(toolbox.vae.compression.latent_shape(SIZE)[1:], generator=generator)
    start = torch.from_numpy(picture()).movedim(-1, 0).float() / 255
    masked = mask_out(known_frames([start], [], 5))
    noise = torch.randn(masked.shape, generator=generator)
    assert torch.equal(video.value, toolbox.vae.encode_video(augment(masked, noise, 0.0563)))


@pytest.mark.feature("C062", "C035")
def test_a_sample_of_a_batch_equals_the_sample_alone(pipe: Pipeline) -> None:
    condition = [said("frames", start=picture())]
    batch = pipe(**{**SMALL, "prompt": (PROMPT, "a green star")}, videos_per_prompt=2, conditions=condition)
    for i, (prompt, seed) in enumerate([(PROMPT, 7), (PROMPT, 8), ("a green star", 9), ("a green star", 10)]):
        alone = pipe(**{**SMALL, "prompt": prompt, "seed": seed}, conditions=condition).frames
        torch.testing.assert_close(batch.frames[i], alone[0], rtol=0, atol=1e-5)


def test_draws_do_not_depend_on_the_order_of_stages(pipe: Pipeline) -> None:
    state = State(pipe.complete(**SMALL, videos_per_prompt=2), replace(SIZE, batch=2))
    (first, ahead), (again, behind) = (draw_noise(state, pipe.prepare()) for _ in range(2))
    assert torch.equal(first, again)
    assert [a.get_state().tolist() for a in ahead] == [b.get_state().tolist() for b in behind]


# --- what is refused, before weights are read ------------------------------------------------------


def refused(make: Any, kind: type[EasyAnimateError], message: str, folder: Path, **condition: Any) -> None:
    heard, fresh = Recorder(), make(folder)
    with pytest.raises(kind) as caught:
        fresh(**SMALL, conditions=[condition], events=EventBus(heard))
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert heard.stages == []


@pytest.mark.feature("C035", "C039")
@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (said("frames"), "nothing is given"),
        (said("frames", end="end.png"), "'end' needs a picture to start with"),
        (said("frames", start="a.png", video="a.mp4", mask="m.png"), "exclude each other"),
        (said("frames", video="a.mp4"), "'video' needs 'mask'"),
        (said("frames", mask="m.png"), "'mask' needs 'video'"),
        (said("frames", start=[1, 2]), "must be a path, or pixels"),
        (said("frames", start=" "), "must not be empty"),
        (said("frames", strat="a.png"), "'conditions[0].strat' is not a setting"),
        (said("source-video"), "'conditions[0].video' is missing"),
        (said("source-video", video="a.mp4", strength=1.5), "'conditions[0].strength' is '1.5'"),
        (said("source-video", video="a.mp4", strength=-0.1), "must be at least 0"),
    ],
)
def test_options_that_cannot_be(condition: dict[str, Any], message: str, folder: Path) -> None:
    refused(inpainter, InvalidRequest, message, folder, **condition)


@pytest.mark.feature("C035", "C039")
def test_files_that_cannot_be(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "text.mp4").write_text("not a video")
    Image.fromarray(picture()).save(tmp_path / "good.png")
    for condition, message in (
        (said("frames", start=str(tmp_path / "text.png")), "cannot read"),
        (said("frames", start=str(tmp_path / "none.png")), "does not exist"),
        (said("frames", start=str(tmp_path / "good.png"), end=str(tmp_path / "text.png")), "cannot read"),
        (said("source-video", video=str(tmp_path / "text.mp4")), "cannot read"),
        (said("source-video", video=str(tmp_path)), "is a folder"),
    ):
        refused(inpainter, UnreadableMedia, message, folder, **condition)


@pytest.mark.feature("C039")
def test_a_mask_of_another_size(folder: Path) -> None:
    small = np.zeros((16, 16), dtype=np.uint8)
    for name in ("frames", "source-video"):
        condition = said(name, video=clip(5), mask=small)
        refused(inpainter, InvalidRequest, "the mask is '16x16' and the video 32x48", folder, **condition)


def test_a_mask_that_is_too_short(pipe: Pipeline) -> None:
    with pytest.raises(InvalidRequest, match="the mask has '3' frames and the video 5"):
        conditions(pipe, said("frames", video=clip(5), mask=np.zeros((3, 32, 48), dtype=np.uint8)))


@pytest.mark.feature("C038", "C039")
def test_a_model_without_the_inlet_says_so(tmp_path: Path) -> None:
    message = "the model 'v5.1-7b' has no inlet 'mask' for 'frames' (it has: text)"
    refused(painter, IncompatibleConditions, message, tmp_path, name="frames", start=picture())


def test_two_conditions_for_one_inlet(pipe: Pipeline) -> None:
    start = said("frames", start=picture())
    with pytest.raises(IncompatibleConditions, match="two conditions feed the inlet 'mask'"):
        pipe.complete(**SMALL, conditions=[start, start])
    # Whether 'source-video' feeds it depends on the model.
    video = said("source-video", video=clip(5), mask=np.zeros((32, 48), dtype=np.uint8))
    with pytest.raises(IncompatibleConditions, match="two conditions feed the inlet 'mask'"):
        pipe(**SMALL, conditions=[start, video])


def test_a_start_picture_and_a_video_to_start_from(pipe: Pipeline) -> None:
    start, video = said("frames", start=picture()), said("source-video", video=clip(5), strength=0.5)
    both = pipe(**SMALL, conditions=[start, video]).frames
    assert not torch.equal(both, pipe(**SMALL, conditions=[video]).frames)
    assert not torch.equal(both, pipe(**SMALL, conditions=[start]).frames)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4, 4), dtype=np.uint8), "'4x4x4'"),
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), "'2x4x4x3'"),
        (np.zeros((4, 4, 3), dtype=np.int64), "'int64'"),
        (np.full((4, 4, 3), 2.0), "from '2' to '2'"),
        (np.full((4, 4, 3), np.nan), "from 'nan' to 'nan'"),
        (torch.zeros(4, 4, 3), "'4x4x3'"),
    ],
)
def test_arrays_that_are_no_picture(pixels: Any, message: str) -> None:
    with pytest.raises(UnreadableMedia, match=message):
        read_picture(pixels)


def test_a_state_with_conditions_of_its_own_keeps_them(pipe: Pipeline) -> None:
    request = pipe.complete(**SMALL)
    condition = Condition("mask", torch.ones(1, 1, 2, 4, 6))
    assert next(s for s in pipe.plan(request) if s.name == "condition")(
        State(request, SIZE, conditions=(condition,)), pipe.prepare()
    ).conditions == (condition,)


# --- documents -------------------------------------------------------------------------------------


def test_a_document_names_files_and_fingerprints_pixels(pipe: Pipeline, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "start.png")
    by_path = pipe.complete(**SMALL, conditions=[FramesOptions(start=tmp_path / "start.png")])
    document = json.loads(json.dumps(by_path.model_dump(mode="json")))
    assert document["conditions"] == [
        {"name": "easyanimate-core:frames", "start": [str(tmp_path / "start.png")]},
    ]
    assert GenerationRequest.model_validate(document) == by_path

    pixels = pipe.complete(**SMALL, conditions=[SourceVideoOptions(video=clip(5))]).model_dump(mode="json")
    (condition,) = pixels["conditions"]
    assert condition["video"].startswith("pixels:5x32x48x3:sha256:")
    with pytest.raises(InvalidRequest, match="these pixels were given from Python"):
        pipe.complete(**SMALL, conditions=[condition])


def test_a_request_without_a_frame_rate_is_not_complete() -> None:
    condition = said("source-video", video=clip(5))
    request = GenerationRequest(prompt=PROMPT, conditions=[condition], seed=0)
    with pytest.raises(InvalidRequest, match="'fps' open"):
        request.conditions[0].create().reference(request)  # type: ignore[attr-defined]
