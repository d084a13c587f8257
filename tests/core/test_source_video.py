"""The condition `source-video`: strength, masks, frame rates, and videos that are too short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from easyanimate_core.conditioning.draws import draw_noise
from easyanimate_core.conditioning.pixels import fit_clip, read_clip
from easyanimate_core.data import Geometry, State, Video
from easyanimate_core.errors import IncompatibleConditions
from easyanimate_core.events import EventBus
from easyanimate_core.interfaces import Renoises
from easyanimate_core.media.read import frame_stride, probe_video, read_video
from easyanimate_core.pipeline import Pipeline
from easyanimate_core.samplers.catalog import Flow
from inpainting import SMALL, clip, inpainter, painter, said
from recorder import Recorder

SIZE = Geometry(32, 48, 5)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return inpainter(tmp_path_factory.mktemp("inp"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return painter(tmp_path_factory.mktemp("t2v"))


@pytest.fixture
def given(pipe: Pipeline) -> Iterator[list[Tensor]]:
    """What the denoiser's first layer reads, `(2·B·f, 33, h, w)`, call by call."""
    seen: list[Tensor] = []
    proj = pipe.prepare().denoiser.proj  # type: ignore[attr-defined]
    hook = proj.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    yield seen
    hook.remove()


def movie(path: Path, frames: int, fps: float, *, height: int = 32, width: int = 48) -> Path:
    pixels = torch.from_numpy(clip(frames, height=height, width=width)).permute(3, 0, 1, 2)[None] / 255
    return Video(pixels, fps).save(path)


@pytest.mark.feature("C033")
def test_strength_takes_the_last_steps(pipe: Pipeline, given: list[Tensor]) -> None:
    pipe(**{**SMALL, "steps": 10}, guidance=1, conditions=[said("source-video", video=clip(5), strength=0.7)])
    assert len(given) == 7
    toolbox = pipe.prepare()
    pixels = torch.from_numpy(clip(5)).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
    sigma = toolbox.sampler.schedule(10).timesteps[3] / 1000
    noise, _ = draw_noise(State(pipe.complete(**SMALL), SIZE), toolbox)
    begun = sigma * noise + (1 - sigma) * toolbox.vae.encode_video(pixels)
    torch.testing.assert_close(given[0][:, :16], begun[0].transpose(0, 1), rtol=0, atol=1e-4)
    assert not given[0][:, 16:].any(), "nothing is known, everything is new"


@pytest.mark.feature("C033")
def test_strength_1_ignores_the_video_and_strength_0_returns_it(pipe: Pipeline) -> None:
    def made(strength: float) -> Tensor:
        return pipe(**SMALL, conditions=[said("source-video", video=clip(5), strength=strength)]).frames

    assert torch.equal(made(1), pipe(**SMALL).frames)
    toolbox = pipe.prepare()
    pixels = torch.from_numpy(clip(5)).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
    decoded = toolbox.vae.decode_video(toolbox.vae.encode_video(pixels))
    torch.testing.assert_close(made(0), (decoded / 2 + 0.5).clamp(0, 1))


@pytest.mark.feature("C033")
def test_a_model_without_inlets_starts_from_a_video_too(plain: Pipeline) -> None:
    condition = said("source-video", video=clip(5), strength=0.5)
    made = plain(**{**SMALL, "steps": 4}, videos_per_prompt=2, conditions=[condition])
    assert made.frames.shape == (2, 3, 5, 32, 48)
    assert not torch.equal(made.frames[:1], plain(**{**SMALL, "steps": 4}).frames)


@pytest.mark.feature("C033", "C035")
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_model_without_inlets_keeps_what_is_not_masked(plain: Pipeline, strength: float) -> None:
    mask = np.zeros((32, 48), dtype=np.uint8)
    mask[:, 24:] = 255
    toolbox = plain.prepare()
    request = plain.complete(
        **{**SMALL, "steps": 4}, conditions=[said("source-video", video=clip(5), mask=mask, strength=strength)]
    )
    stages = {stage.name: stage for stage in plain.plan(request)}
    state = State(request, SIZE)
    with torch.no_grad():
        for name in ("encode_text", "condition", "noise"):
            state = stages[name](state, toolbox)
        latents = stages["denoise"](state, toolbox).latents
    assert state.conditions == ()
    assert state.origin is not None
    assert latents is not None
    assert torch.equal(latents[..., 0], state.origin.latents[..., 0]), "kept exactly: the last step leaves it clean"
    assert not torch.equal(latents[..., -1], state.origin.latents[..., -1])


def test_two_origins_are_one_too_many(pipe: Pipeline) -> None:
    condition = said("source-video", video=clip(5), strength=0.5)
    with pytest.raises(IncompatibleConditions, match="says what sampling starts from"):
        pipe(**SMALL, conditions=[condition, condition])


@pytest.mark.feature("C033")
def test_clean_latents_at_every_point_of_a_run() -> None:
    sampler = Flow()
    schedule = sampler.schedule(10, strength=0.7)
    clean, noise = torch.randn(2, 2, 4, 1, 2, 2)
    assert isinstance(sampler, Renoises)
    assert torch.equal(sampler.renoise(clean, noise, 0), sampler.begin(noise, clean))
    assert torch.equal(sampler.renoise(clean, noise, len(schedule)), clean)
    # The true velocity leads from each of these points to the next.
    here = sampler.begin(noise, clean)
    for index in range(len(schedule)):
        here = sampler.step(noise - clean, index, here)
        torch.testing.assert_close(here, sampler.renoise(clean, noise, index + 1), rtol=0, atol=1e-5)


@pytest.mark.feature("C044")
def test_videos_are_resized_without_smoothing() -> None:
    frames = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    frames[1, :, 1] = 255
    small = fit_clip(frames, 2, 2)
    assert small.shape == (3, 2, 2, 2)
    assert (small[:, 1] * 255).flatten().tolist() == pytest.approx([128, 0] * 6, abs=0.01)
    exact = fit_clip(frames.astype(np.float32) / 255, 2, 2)
    assert exact[0, 1, 0, 0] == 0.5


@pytest.mark.feature("C045")
@pytest.mark.parametrize(
    ("source", "wanted", "stride"),
    [(24, 8, 3), (30, 8, 3), (8, 8, 1), (5, 8, 1), (23.976, 8, 3), (60, 24, 2), (7.9, 8, 1)],
)
def test_every_nth_frame_is_kept(source: float, wanted: float, stride: int) -> None:
    assert frame_stride(source, wanted) == stride


@pytest.mark.feature("C045")
def test_a_video_is_read_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    path = movie(tmp_path / "24.mp4", 10, 24)
    every, fps = read_video(path)
    assert fps == 24
    thinned, _ = read_video(path, fps=8)
    assert np.array_equal(thinned, every[::3])
    assert np.array_equal(read_video(path, fps=8, start=1, max_frames=2)[0], every[1:7:3])
    facts = probe_video(path)
    assert (facts.height, facts.width, facts.frames, facts.fps) == (32, 48, 10, 24)
    from_memory = Video(torch.from_numpy(every).permute(3, 0, 1, 2)[None].float() / 255, 24.0)
    assert read_clip(from_memory, fps=8, frames=3).frames.shape == (3, 32, 48, 3)


@pytest.mark.feature("C045")
def test_a_slow_video_gives_every_frame_and_a_notice(pipe: Pipeline, tmp_path: Path) -> None:
    heard = Recorder()
    path = movie(tmp_path / "5.mp4", 5, 5)
    pipe(**SMALL, conditions=[said("source-video", video=path, strength=0.5)], events=EventBus(heard))
    assert heard.notices == ["the video has 5 frames/s, fewer than 8: it plays 1.6 times as fast"]


@pytest.mark.feature("C041", "C045")
def test_a_short_video_makes_a_short_video(pipe: Pipeline, tmp_path: Path) -> None:
    heard = Recorder()
    path = movie(tmp_path / "24.mp4", 20, 24)
    condition = said("source-video", video=path, strength=0.5)
    made = pipe(**{**SMALL, "frames": 13}, conditions=[condition], events=EventBus(heard))
    assert made.frames.shape[2] == 5
    assert heard.notices == [
        "13 frames become 7: the given video has no more",
        "7 frames become 5: this model makes multiples of 4, plus 1",
    ]


def test_a_sampler_that_cannot_blend_is_refused(plain: Pipeline) -> None:
    class Simple:
        """Only what the contract of samplers asks for."""

        def __init__(self, sampler: Any) -> None:
            self.process, self.schedule, self.begin = sampler.process, sampler.schedule, sampler.begin
            self.scale_input, self.step = sampler.scale_input, sampler.step

    mask = np.zeros((32, 48), dtype=np.uint8)
    request = plain.complete(**SMALL, conditions=[said("source-video", video=clip(5), mask=mask)])
    toolbox = replace(plain.prepare(), sampler=Simple(plain.prepare().sampler))
    state = State(request, SIZE)
    with pytest.raises(IncompatibleConditions, match="'Simple' cannot keep parts"), torch.no_grad():
        for stage in plain.plan(request):
            state = stage(state, toolbox)
