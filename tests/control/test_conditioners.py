"""Control videos, references, cameras and trajectories in whole runs of tiny models, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from control_models import camera_model, control_model, v5_control_model
from easyanimate_control.camera.moves import parse_moves
from easyanimate_control.camera.path import path_of_moves
from easyanimate_control.camera.rays import camera_map
from easyanimate_core.data import Condition, Geometry, State
from easyanimate_core.errors import EasyAnimateError, IncompatibleConditions, InvalidRequest, UnreadableMedia
from easyanimate_core.events import EventBus
from easyanimate_core.media.write import VideoWriter
from easyanimate_core.pipeline import Pipeline
from easyanimate_core.request import GenerationRequest
from inpainting import clip, painter, picture, said
from recorder import SMALL, Recorder

SIZE = Geometry(32, 48, 5)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return control_model(tmp_path_factory.mktemp("control"))


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return camera_model(tmp_path_factory.mktemp("camera"))


@pytest.fixture
def given(control: Pipeline, camera: Pipeline) -> Iterator[list[Tensor]]:
    """What the first layer of either model is given."""
    seen: list[Tensor] = []
    networks: list[Any] = [pipe.prepare().denoiser for pipe in (control, camera)]
    hooks = [network.proj.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for network in networks]
    yield seen
    for hook in hooks:
        hook.remove()


def conditions(pipe: Pipeline, *listed: dict[str, Any], **settings: Any) -> tuple[Condition, ...]:
    """What the only condition of a request makes."""
    request = pipe.complete(**{**SMALL, **settings}, conditions=listed)
    geometry = Geometry(32, 48, request.frames or 5, request.batch)
    return request.conditions[0].create().encode(State(request, geometry), pipe.prepare())


# --- what the inlets get ---------------------------------------------------------------------------


@pytest.mark.feature("K001")
def test_a_control_video_is_encoded_as_it_is(control: Pipeline) -> None:
    (condition,) = conditions(control, said("control-video", video=clip(5)))
    pixels = torch.from_numpy(clip(5)).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
    assert condition.inlet == "control"
    torch.testing.assert_close(condition.value, control.prepare().vae.encode_video(pixels))


@pytest.mark.feature("K013")
def test_two_control_videos_are_overlaid(control: Pipeline) -> None:
    other = np.ascontiguousarray(clip(5)[::-1])
    (both,) = conditions(control, said("control-video", video=clip(5), overlay=other))
    (single,) = conditions(control, said("control-video", video=np.maximum(clip(5), other)))
    torch.testing.assert_close(both.value, single.value)


@pytest.mark.feature("K002")
def test_a_reference_is_in_the_first_latent_frame_only(control: Pipeline) -> None:
    (condition,) = conditions(control, said("reference", image=picture()))
    assert condition.inlet == "reference"
    first = torch.from_numpy(picture()).permute(2, 0, 1)[None, :, None].float() / 255 * 2 - 1
    torch.testing.assert_close(condition.value[:, :, :1], control.prepare().vae.encode_video(first))
    assert not condition.value[:, :, 1:].any()


@pytest.mark.feature("K002")
def test_a_single_picture_has_no_reference(control: Pipeline) -> None:
    heard = Recorder()
    control(**{**SMALL, "frames": 1}, conditions=[said("reference", image=picture())], events=EventBus(heard))
    assert "a single picture is made: the reference has no say in it" in heard.notices


@pytest.mark.feature("K006", "K009")
def test_a_camera_is_rays_on_the_grid_of_the_latents(camera: Pipeline) -> None:
    (condition,) = conditions(camera, said("camera", move="pan-left + zoom-in", speed=0.5))
    path = path_of_moves(parse_moves("pan-left + zoom-in"), 5, speed=0.5)
    assert torch.equal(condition.value, camera_map(path, SIZE, camera.prepare().vae))


@pytest.mark.feature("K004")
def test_a_trajectory_is_a_control_video(control: Pipeline, tmp_path: Path) -> None:
    points = [[[8, 20], [40, 24]], [[20, 8]]]
    (tmp_path / "points.json").write_text(json.dumps({"height": 64, "width": 96, "tracks": [[[16, 40], [80, 48]]]}))
    (condition,) = conditions(control, said("trajectory", points=points))
    (scaled,) = conditions(control, said("trajectory", points=str(tmp_path / "points.json")))
    (single,) = conditions(control, said("trajectory", points=points[0], size="32x48"))
    assert condition.inlet == "control"
    assert torch.equal(scaled.value, single.value)
    assert not torch.equal(condition.value, single.value)


# --- whole runs ------------------------------------------------------------------------------------


@pytest.mark.feature("K001", "K003", "K014")
def test_control_models_take_their_channels_in_order(control: Pipeline, given: list[Tensor]) -> None:
    video, image = said("control-video", video=clip(5)), said("reference", image=picture())
    both = control(**SMALL, conditions=[image, video]).frames
    assert given[0].shape[1] == 48
    assert given[0][:, 16:32, :].any()
    assert given[0][:, 32:].any()
    given.clear()
    plain = control(**SMALL).frames
    assert not given[0][:, 16:].any(), "without conditions both inlets are zeros"
    given.clear()
    only = control(**SMALL, conditions=[video]).frames
    assert not given[0][:, 32:].any(), "without a reference its inlet is zeros"
    assert not torch.equal(both, only)
    assert not torch.equal(only, plain)


@pytest.mark.feature("K006", "K014")
def test_camera_models_take_their_channels_in_order(camera: Pipeline, given: list[Tensor]) -> None:
    moved, image = said("camera", move="pan-left"), said("reference", image=picture())
    left = camera(**SMALL, conditions=[image, moved]).frames
    assert given[0].shape[1] == 38
    assert given[0][:, 16:22].any()
    assert not torch.equal(left, camera(**SMALL, conditions=[image, said("camera", move="pan-right")]).frames)


@pytest.mark.feature("K003", "K014")
def test_a_control_model_without_a_reference(tmp_path: Path) -> None:
    pipe = v5_control_model(tmp_path)
    assert pipe(**SMALL, conditions=[said("control-video", video=clip(5))]).frames.shape == (1, 3, 5, 32, 48)
    with pytest.raises(IncompatibleConditions, match=r"no inlet 'reference' for 'reference' \(it has: text, control\)"):
        pipe(**SMALL, conditions=[said("reference", image=picture())])


@pytest.mark.feature("K006")
def test_a_wide_inlet_decides_how_rays_are_packed(tmp_path: Path) -> None:
    pipe = camera_model(tmp_path, channels=24)
    (condition,) = conditions(pipe, said("camera", move="pan-left"))
    assert condition.value.shape == (1, 24, 2, 4, 6)
    assert pipe(**SMALL, conditions=[said("camera", move="pan-left")]).frames.shape == (1, 3, 5, 32, 48)
    unfit = camera_model(tmp_path / "unfit", channels=10)
    with pytest.raises(IncompatibleConditions, match="the inlet 'camera' has '10' channels"):
        unfit(**SMALL, conditions=[said("camera", move="pan-left")])


@pytest.mark.feature("K001", "K006", "C062")
def test_a_sample_of_a_batch_equals_the_sample_alone(control: Pipeline) -> None:
    listed = [said("control-video", video=clip(5)), said("reference", image=picture())]
    batch = control(**SMALL, videos_per_prompt=2, conditions=listed).frames
    alone = control(**{**SMALL, "seed": 8}, conditions=listed).frames
    torch.testing.assert_close(batch[1], alone[0], rtol=0, atol=1e-5)


@pytest.mark.feature("K012")
def test_a_short_control_video_makes_a_short_result(control: Pipeline, tmp_path: Path) -> None:
    heard = Recorder()
    with VideoWriter(tmp_path / "short.mp4", fps=24) as writer:
        writer.write(np.ascontiguousarray(clip(17)))
    video = said("control-video", video=str(tmp_path / "short.mp4"))
    made = control(**{**SMALL, "frames": 9}, conditions=[video], events=EventBus(heard))
    assert made.frames.shape[2] == 5, "17 frames at 24 frames/s are 6 at 8, and 5 is what the model can do"
    assert "9 frames become 6: the given video has no more" in heard.notices


@pytest.mark.feature("K012")
def test_a_short_camera_path_is_stretched_with_a_notice(camera: Pipeline) -> None:
    heard = Recorder()
    poses = [tuple(row) for row in path_of_moves(parse_moves("pan-left"), 3).rows().tolist()]
    camera(**SMALL, conditions=[said("camera", poses=poses)], events=EventBus(heard))
    assert "the camera path has 3 poses for 5 frames: it is stretched over them" in heard.notices


def test_requests_with_control_are_documents(control: Pipeline, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "ref.png")
    listed = [said("trajectory", points=[[[8, 20], [40, 24]]]), said("reference", image=tmp_path / "ref.png")]
    request = control.complete(**SMALL, conditions=listed)
    document = json.loads(json.dumps(request.model_dump(mode="json")))
    assert document["conditions"][0] == {"name": "easyanimate-control:trajectory", "points": [[[8, 20], [40, 24]]]}
    assert GenerationRequest.model_validate(document) == request


# --- what is refused, before weights are read ------------------------------------------------------


@pytest.mark.feature("K007", "K014")
@pytest.mark.parametrize(
    ("condition", "kind", "message"),
    [
        (said("control-video"), InvalidRequest, "'conditions[0].video' is missing"),
        (said("control-video", video="none.mp4"), UnreadableMedia, "'none.mp4' does not exist"),
        (said("control-video", video=np.zeros((5, 4, 4), np.uint8)), UnreadableMedia, "a video has the shape '5x4x4'"),
        (said("control-video", video=clip(5), overlay="none.mp4"), UnreadableMedia, "'none.mp4' does not exist"),
        (said("reference", image="words.png"), UnreadableMedia, "cannot read 'words.png'"),
        (said("reference", image=np.full((4, 4, 3), np.nan)), UnreadableMedia, "pixels go from 'nan'"),
        (said("trajectory", points="none.json"), InvalidRequest, "cannot read the trajectory 'none.json'"),
        (said("trajectory", points=[[[900, 900]]]), InvalidRequest, "no point of track 1 is inside the frame of 32x48"),
        (said("trajectory", points=[[[1, 2, 3]]]), InvalidRequest, "track 1, point 1 is '[1, 2, 3]'"),
        (said("camera", move="pan-left"), IncompatibleConditions, "has no inlet 'camera' for 'camera' (it has: text, "),
    ],
    ids=lambda value: "",
)
def test_mistakes_with_control(
    condition: dict[str, Any],
    kind: type[EasyAnimateError],
    message: str,
    control: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.png").write_text("these are words")
    heard = Recorder()
    with pytest.raises(kind) as caught:
        control(**SMALL, conditions=[condition], events=EventBus(heard))
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert heard.stages == []


@pytest.mark.feature("K007")
@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (said("camera"), "no camera path is given"),
        (said("camera", path="none.txt"), "cannot read the camera file 'none.txt'"),
        (said("camera", path="bad.txt"), "'bad.txt', line 2 has '3' numbers, not 19"),
        (said("camera", move="pan-lfet"), "Did you mean 'pan-left'?"),
        (said("camera", move="zoom-in, zoom-out, static, roll-cw, roll-ccw, static"), "'6' camera moves do not fit"),
        (said("camera", poses=[[1.0] * 5]), "'poses', row 1 has '5' numbers, not 19"),
    ],
)
def test_mistakes_with_cameras(
    condition: dict[str, Any], message: str, camera: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_text("title\n1 2 3\n")
    heard = Recorder()
    with pytest.raises(InvalidRequest) as caught:
        camera(**SMALL, conditions=[condition], events=EventBus(heard))
    assert message in caught.value.message
    assert heard.stages == []


def test_two_conditions_for_one_inlet(control: Pipeline) -> None:
    video, drawn = said("control-video", video=clip(5)), said("trajectory", points=[[[8, 20]]])
    with pytest.raises(IncompatibleConditions, match="two conditions feed the inlet 'control'"):
        control(**SMALL, conditions=[video, drawn])


@pytest.mark.feature("K014")
def test_a_model_without_inlets_says_what_it_has(tmp_path: Path) -> None:
    pipe = painter(tmp_path)
    for name, options in (("camera", {"move": "pan-left"}), ("control-video", {"video": clip(5)})):
        with pytest.raises(IncompatibleConditions, match=r"\(it has: text\)"):
            pipe(**SMALL, conditions=[said(name, **options)])
