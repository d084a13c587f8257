"""Camera poses, rays and moves against recorded ones. Source: tests/goldens/camera."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from easyanimate_control.camera.files import parse_camera
from easyanimate_control.camera.moves import parse_moves
from easyanimate_control.camera.path import CameraPath, path_of_moves
from easyanimate_control.camera.rays import camera_map, plucker_rays
from easyanimate_core.data import Geometry
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit
from golden import Call, assert_close, load_case

CASE = load_case("camera")


def calls(*ops: str) -> list[Call]:
    return [call for call in CASE.calls if call.op in ops]


def text_of(asset: str) -> str:
    """The content of a released example file."""
    text: str = next(c.kwargs["text"] for c in CASE.calls if c.kwargs.get("asset") == asset and "text" in c.kwargs)
    return text


def as_recorded(rays: Tensor) -> Tensor:
    """`(F, 6, H, W)` to `(F, H, W, 6)`."""
    return rays.permute(0, 2, 3, 1)


@pytest.mark.feature("K006", "K007", "K010")
@pytest.mark.parametrize("call", calls("pose_file"), ids=str)
def test_rays_of_a_released_file(call: Call) -> None:
    said = call.kwargs
    path = parse_camera(said["text"])
    assert len(path) == said["total_frames"]
    rays = plucker_rays(path, said["height"], said["width"])
    assert not rays[0, :3].any(), "the first camera stands at the origin"
    assert_close(call, {"plucker": as_recorded(rays[:: said["frame_stride"]])})


@pytest.mark.feature("K006", "K008")
@pytest.mark.parametrize("call", calls("pose_params"), ids=str)
def test_rays_of_poses(call: Call) -> None:
    rays = as_recorded(plucker_rays(rows_of(call), call.kwargs["height"], call.kwargs["width"]))
    if "three" not in call.name:
        assert_close(call, {"plucker": rays})
        return
    # With exactly three poses the original takes the cross product along the frames. The directions are right.
    recorded = call.expected["plucker"]
    torch.testing.assert_close(rays[..., 3:], recorded[..., 3:], rtol=1e-4, atol=1e-5)
    moment = torch.linalg.cross(camera_places(rows_of(call))[:, None, None].expand_as(rays[..., 3:]), rays[..., 3:])
    torch.testing.assert_close(rays[..., :3], moment)
    assert not torch.allclose(rays[..., :3], recorded[..., :3], atol=1e-3)


def rows_of(call: Call) -> CameraPath:
    return CameraPath.of_rows(call.inputs["params"].numpy())


def camera_places(path: CameraPath) -> Tensor:
    return torch.from_numpy(path.relative()[:, :3, 3]).float()


@pytest.mark.feature("K006", "K012")
@pytest.mark.parametrize("call", calls("camera_control_latents"), ids=str)
def test_what_the_inlet_is_fed_with(call: Call) -> None:
    said = call.kwargs
    most = int(said["frame_slice"].rpartition(":")[2].rstrip("]"))
    path = parse_camera(text_of(said["asset"])).thinned(3, most)
    frames, height, width = said["latent_size"]

    vae: Any = Magvit(**VAE_CONFIG)
    # The recorded grid is a quarter of the pixels; real ones are an eighth.
    vae.compression = SimpleNamespace(latent_shape=lambda geometry: (1, 16, frames, height, width))
    geometry = Geometry(said["height"], said["width"], most)
    assert_close(call, {"control_latents": camera_map(path, geometry, vae)})


@pytest.mark.parametrize("call", calls("pose_resample"), ids=str)
def test_resampling_as_in_training(call: Call) -> None:
    given = call.inputs["params"].numpy()
    # The recorded rows are no poses; only the interpolation matters here.
    path = CameraPath(given[:, 1:5], given[:, 7:].reshape(-1, 3, 4), given[:, 0]).resampled(call.kwargs["frames"])
    wanted = call.expected["params"].numpy()
    np.testing.assert_allclose(path.lenses, wanted[:, 1:5], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(path.poses.reshape(-1, 12), wanted[:, 7:], rtol=1e-9, atol=1e-9)


@pytest.mark.feature("K009")
@pytest.mark.parametrize("call", calls("camera_motion"), ids=str)
def test_named_moves(call: Call) -> None:
    said = call.kwargs
    path = path_of_moves(parse_moves(said["pose"]), said["frames"], speed=said["speed"])
    assert_close(call, {"RT": torch.from_numpy(path.poses)})


@pytest.mark.feature("K009")
@pytest.mark.parametrize("call", calls("camera_join"), ids=str)
def test_moves_one_after_the_other(call: Call) -> None:
    said = call.kwargs
    moves = parse_moves(f"{said['first']}, {said['second']}")
    path = path_of_moves(moves, 2 * said["frames_each"], speed=said["speed"])
    assert_close(call, {"RT": torch.from_numpy(path.poses)})


@pytest.mark.feature("K010")
def test_a_released_pan_is_a_named_move() -> None:
    released = parse_camera(text_of("asset/Pan_Left.txt"))
    ours = path_of_moves(parse_moves("pan-left"), 49)
    np.testing.assert_allclose(ours.rows(), released.rows(), atol=1e-8)
