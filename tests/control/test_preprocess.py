"""Preprocessors: what they draw of simple pictures, files with progress and cancel, and what is refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from easyanimate_control.preprocess.pose import draw_people
from easyanimate_control.preprocess.run import apply, preprocess_file
from easyanimate_control.slots import PREPROCESSORS, Preprocessor
from easyanimate_core.errors import (
    Cancelled,
    CheckpointNotFound,
    ExecutionError,
    InvalidOptions,
    MediaError,
    PluginLoadError,
    UnknownComponent,
    UnreadableMedia,
)
from easyanimate_core.events import CancelToken, Event, EventBus, StageProgress
from easyanimate_core.media.read import read_image, read_video
from easyanimate_core.media.write import VideoWriter
from easyanimate_core.plugins import active
from recorder import Recorder


def made(name: str, **options: Any) -> Preprocessor:
    return active().registries[PREPROCESSORS].create(name, options)


def square(frames: int = 1) -> Tensor:
    """A white square on grey, `(F, 3, 64, 64)`; it moves one pixel a frame."""
    video = torch.full((frames, 3, 64, 64), 0.25)
    for frame in range(frames):
        video[frame, :, 20:44, 20 + frame : 44 + frame] = 1
    return video


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Twenty frames of the square, at 24 frames/s."""
    with VideoWriter(tmp_path / "film.mp4", fps=24) as writer:
        writer.write(square(20).movedim(1, -1))
    return writer.path


# --- what they draw --------------------------------------------------------------------------------


@pytest.mark.feature("K011")
def test_canny_draws_the_border_of_things() -> None:
    edges = made("canny")(square(2))
    assert edges.shape == (2, 3, 64, 64)
    assert set(edges.unique().tolist()) == {0, 1}
    assert not edges[0, :, 24:40, 24:40].any(), "nothing inside"
    assert edges[0, 0, 32, 18:23].any()
    assert torch.equal(edges[1, :, :, 1:], edges[0, :, :, :-1]), "it moves as the square does"
    assert not made("canny", low=1000, high=1000)(square() * 0.3).any()


@pytest.mark.feature("K011")
def test_lines_are_the_sides_of_things() -> None:
    lines = made("mlsd")(square())
    assert lines[0, 0, 18:23, 32].any()
    assert not lines[0, :, 24:40, 24:40].any()
    assert not made("lines", shortest=0.9)(square()).any()
    assert not made("lines")(torch.zeros(1, 3, 64, 64)).any(), "nothing to see"


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a depth network of random weights, as the hub has them."""
    folder = tmp_path_factory.mktemp("depth")
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8],
        reassemble_factors=[2, 1],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    network = DepthAnythingForDepthEstimation(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    size = {"height": 28, "width": 28}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return folder


@pytest.mark.feature("K011")
def test_depth_spans_every_frame_from_dark_to_bright(depth_model: Path) -> None:
    frames = torch.rand(2, 3, 48, 64)
    depth = made("depth", model=str(depth_model), device="cpu")(frames)
    assert depth.shape == frames.shape
    assert torch.equal(depth[:, 0], depth[:, 2])
    for frame in depth:
        assert (frame.min(), frame.max()) == (0, pytest.approx(1))
    assert torch.equal(made("depth", model=str(depth_model), device="cpu")(frames[1:]), depth[1:])


def test_a_depth_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="cannot load the depth model"):
        made("depth", model=str(tmp_path / "nothing"))


@pytest.mark.skipif(importlib.util.find_spec("rtmlib") is not None, reason="rtmlib is installed")
def test_without_its_library_pose_says_what_to_install() -> None:
    with pytest.raises(PluginLoadError, match="needs a library: No module named 'rtmlib'") as caught:
        made("pose")
    assert caught.value.hint == "pip install -U 'easyanimate-control[pose]'"


@pytest.mark.feature("K011")
def test_people_are_drawn_in_the_colours_of_openpose() -> None:
    joints, scores = np.zeros((1, 18, 2)), np.zeros((1, 18))
    joints[0, 2], joints[0, 3] = (20, 20), (20, 200)  # a right upper arm
    scores[0, 2:4] = 1
    drawn = draw_people(joints, scores, 256, 256, confidence=0.4)
    assert tuple(drawn[20, 20]) == (255, 170, 0)
    assert tuple(drawn[200, 20]) == (255, 255, 0)
    assert tuple(drawn[110, 20]) == (153, 102, 0)
    assert not drawn[:, 30:].any()
    assert not draw_people(joints, scores, 256, 256, confidence=1.1).any()
    assert not draw_people(np.zeros((0, 18, 2)), np.zeros((0, 18)), 64, 64, confidence=0.4).any()


def test_without_opencv_canny_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "easyanimate_control.preprocess.canny", raising=False)
    with pytest.raises(PluginLoadError) as caught:
        made("canny")
    assert caught.value.hint == "pip install -U 'easyanimate-control[preprocess]'"


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.feature("K011", "K012")
def test_a_file_is_made_part_by_part_with_progress(film: Path, tmp_path: Path) -> None:
    heard = Recorder()
    target = preprocess_file(film, tmp_path / "edges.mp4", made("canny"), events=EventBus(heard))
    frames, fps = read_video(target)
    assert (frames.shape, fps) == ((20, 64, 64, 3), 24)
    assert frames[:, 32].max() > 200
    told = [event for event in heard if isinstance(event, StageProgress)]
    assert [event.done for event in told] == [8, 16, 20]
    assert {(event.total, event.unit) for event in told} == {(20, "frames")}


@pytest.mark.feature("K012")
def test_a_file_is_thinned_and_cut(film: Path, tmp_path: Path) -> None:
    target = preprocess_file(film, tmp_path / "thin.mp4", made("canny"), fps=8, frames=5)
    frames, fps = read_video(target)
    assert (len(frames), fps) == (5, 8)
    source, _ = read_video(film)
    wanted = made("canny")(torch.from_numpy(source[::3][:5]).movedim(-1, 1).float() / 255).movedim(1, -1).numpy()
    assert np.abs(frames / 255 - wanted).mean() < 0.02


def test_a_picture_makes_a_picture(tmp_path: Path) -> None:
    Image.fromarray((square()[0].movedim(0, -1) * 255).byte().numpy()).save(tmp_path / "in.png")
    target = preprocess_file(tmp_path / "in.png", tmp_path / "out.png", made("canny"))
    assert set(np.unique(read_image(target))) == {0, 255}


@pytest.mark.feature("K011")
def test_a_strangers_preprocessor_is_called_with_all_frames(film: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def negative(frames: Tensor) -> Tensor:
        seen.append(tuple(frames.shape))
        return 1 - frames

    preprocess_file(film, tmp_path / "negative.mp4", negative)
    assert seen == [(8, 3, 64, 64), (8, 3, 64, 64), (4, 3, 64, 64)]


def test_a_cancel_leaves_nothing(film: Path, tmp_path: Path) -> None:
    cancel = CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, StageProgress):
            cancel.cancel()

    with pytest.raises(Cancelled):
        preprocess_file(film, tmp_path / "edges.mp4", made("canny"), events=EventBus(stop), cancel=cancel)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def fails(frames: Tensor) -> Tensor:
    raise RuntimeError("out of coffee")


@pytest.mark.parametrize(
    ("preprocessor", "said"),
    [
        (lambda frames: frames[:, :1], "made '(1, 1, 64, 64)' of (1, 3, 64, 64)"),
        (lambda frames: frames * 2, "made '(1, 3, 64, 64)'"),
        (lambda frames: frames * torch.nan, "made '(1, 3, 64, 64)'"),
        (fails, "the preprocessor 'function' failed: RuntimeError('out of coffee')"),
    ],
)
def test_a_preprocessor_that_breaks_its_contract(preprocessor: Preprocessor, said: str) -> None:
    with pytest.raises(ExecutionError) as caught:
        apply(preprocessor, square())
    assert said in caught.value.message


def test_files_that_cannot_be(film: Path, tmp_path: Path) -> None:
    (tmp_path / "words.mp4").write_text("these are words")
    with pytest.raises(UnreadableMedia, match="cannot read"):
        preprocess_file(tmp_path / "words.mp4", tmp_path / "out.mp4", made("canny"))
    with pytest.raises(UnreadableMedia, match="does not exist"):
        preprocess_file(tmp_path / "none.mp4", tmp_path / "out.mp4", made("canny"))
    with pytest.raises(MediaError, match="can hold 1 frame, not 20"):
        preprocess_file(film, tmp_path / "out.png", made("canny"))
    with pytest.raises(MediaError, match="exists already"):
        preprocess_file(film, film, made("canny"))


def test_names_and_options_that_cannot_be() -> None:
    with pytest.raises(UnknownComponent, match="no 'preprocessors' component is called 'cany'"):
        made("cany")
    with pytest.raises(InvalidOptions, match="low cannot be above high"):
        made("canny", low=300)
    with pytest.raises(InvalidOptions, match="'shortest' is '2'"):
        made("lines", shortest=2)
