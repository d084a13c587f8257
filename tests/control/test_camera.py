"""Camera paths: the moves' language, files, rays, and what is refused. Recorded cases are in test_golden_camera."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from easyanimate_control.camera.conditioner import camera_path
from easyanimate_control.camera.files import camera_json, camera_text, parse_camera, read_camera
from easyanimate_control.camera.moves import MOVES, Move, parse_moves
from easyanimate_control.camera.path import CameraPath, path_of_moves
from easyanimate_control.camera.rays import SCALE, camera_map, pinhole, plucker_rays
from easyanimate_control.options import CameraOptions
from easyanimate_core.data import Geometry
from easyanimate_core.errors import IncompatibleConditions, InvalidOptions, InvalidRequest
from easyanimate_core.schema import parse
from easyanimate_core.testing import tiny_toolbox
from workspace import ROOT

VAE = tiny_toolbox(()).vae


def path(moves: str, frames: int = 5, **settings: Any) -> CameraPath:
    return path_of_moves(parse_moves(moves), frames, **settings)


def rows(count: int = 3) -> list[list[float]]:
    """The rows of a pan, as lists that a test may spoil."""
    made: list[list[float]] = path("pan-left", count).rows().tolist()
    return made


# --- moves -----------------------------------------------------------------------------------------


@pytest.mark.feature("K009")
def test_moves_are_added_scaled_and_said_in_any_spelling() -> None:
    assert parse_moves("pan-left + zoom-in*0.5, roll-cw") == (Move((1, 0, -1)), Move(roll=-1))
    assert parse_moves("Pan Left") == parse_moves("PAN_LEFT") == parse_moves(" pan-left ")
    assert parse_moves("ACW") == parse_moves("roll-ccw")
    assert parse_moves("zoom-in*-1") == parse_moves("zoom-out")
    assert len(MOVES) == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pan-lfet", "no move is called 'pan-lfet'. Did you mean 'pan-left'?"),
        ("dolly", "Known: static, pan-left"),
        ("pan-left +", "a move is missing"),
        ("", "a move is missing"),
        ("zoom-in*fast", "'fast' is no factor"),
        ("zoom-in*nan", "'nan' is no factor"),
    ],
)
def test_moves_that_nobody_knows(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_moves(text)


@pytest.mark.feature("K009")
def test_a_static_camera_stands_and_a_pan_travels() -> None:
    assert np.array_equal(path("static").poses, np.tile(np.eye(3, 4), (5, 1, 1)))
    assert path("pan-up", 4).poses[:, 1, 3].tolist() == [0, 0.375, 0.75, 1.125]
    assert np.allclose(path("pan-up", 4, speed=-2).poses[:, 1, 3], [0, -0.75, -1.5, -2.25])
    assert len(path("roll-cw, zoom-in, static", 8)) == 8
    with pytest.raises(InvalidRequest, match="'3' camera moves do not fit into 2 frames"):
        path("roll-cw, zoom-in, static", 2)


@pytest.mark.feature("K006", "K009")
def test_where_things_go_in_the_picture() -> None:
    """A point straight ahead, seen by the last camera of each move."""

    def seen(moves: str, point: tuple[float, float, float] = (0, 0, 4)) -> np.ndarray[Any, Any]:
        pose = path(moves).poses[-1]
        x, y, z = pose[:, :3] @ np.array(point) + pose[:, 3]
        return np.array([x / z, y / z])

    assert seen("pan-left")[0] > 0, "the camera goes left, so things go right"
    assert seen("pan-up")[1] > 0, "the camera goes up, so things go down"
    assert seen("zoom-in", (1, 0, 4))[0] > seen("static", (1, 0, 4))[0], "things grow"
    assert seen("roll-ccw", (1, 0, 4))[1] > 0, "the camera turns anticlockwise, so the picture turns clockwise"


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.feature("K007", "K009")
@pytest.mark.parametrize("written", [camera_text, camera_json])
def test_what_is_written_is_read_back(written: Callable[[CameraPath], str], tmp_path: Path) -> None:
    ours = path("pan-left + roll-cw, zoom-in", 9)
    (tmp_path / "camera.any").write_text(written(ours), encoding="utf-8")
    np.testing.assert_allclose(read_camera(tmp_path / "camera.any").rows(), ours.rows(), atol=1e-9)


@pytest.mark.feature("K010")
@pytest.mark.parametrize("name", ["pan-left", "pan-right", "pan-up", "pan-down", "walk"])
def test_example_files_are_the_moves_that_they_say(name: str) -> None:
    file = ROOT / "examples" / "cameras" / f"{name}.txt"
    text = file.read_text(encoding="utf-8")
    moves = text.splitlines()[0]
    assert len(read_camera(file)) == 49
    assert text == camera_text(path(moves, 49), title=moves)
    assert moves == name or name == "walk"


@pytest.mark.feature("K007")
def test_spellings_of_a_file() -> None:
    ours = path("pan-left", 3)
    lines = camera_text(ours, title="https://example.org/a video").splitlines()
    for text in ("\n".join(lines), "\n".join(lines[1:]), "\r\n".join([*lines, "", ""])):
        np.testing.assert_allclose(parse_camera(text).poses, ours.poses, atol=1e-9)
    short = [row[1:] for row in ours.rows().tolist()]
    for text in (json.dumps(short), json.dumps(json.dumps(short))):
        np.testing.assert_allclose(parse_camera(text).poses, ours.poses)


def spoilt(row: int, column: int, value: Any) -> str:
    table = rows()
    table[row][column] = value
    return "title\n" + "\n".join(" ".join(str(number) for number in line) for line in table)


@pytest.mark.feature("K007")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title\n1 2 3", "line 2 has '3' numbers, not 19"),
        ("title\n" + "0 " * 20, "line 2 has '20' numbers, not 19"),
        (spoilt(1, 10, "nan"), "line 3: number 11 is 'nan'"),
        (spoilt(2, 4, "inf"), "line 4: number 5 is 'inf'"),
        (spoilt(0, 1, 0), "the focal lengths are '0' and '0.946027'"),
        (spoilt(0, 2, -1), "the focal lengths are '0.53214' and '-1'"),
        (spoilt(0, 7, 5), "the pose's rotation is none"),
        (spoilt(1, 3, "half"), "line 3: '0.0 0.532139961 0.9460265973333334 half"),
        ("title only", "has no poses"),
        ("", "has no poses"),
        ("[]", "has no poses"),
        ("[[1, 2]]", "row 1 has '2' numbers, not 19"),
        ('[["a"]]', "row 1: '['a']' are not numbers"),
        ("[1, 2]", "is no list of rows"),
        ("[[", "is not valid JSON"),
    ],
)
def test_files_that_hold_no_path(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        read_camera(tmp_path / "bad.txt")
    assert message in caught.value.message
    assert "bad.txt" in caught.value.message
    assert caught.value.hint


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "camera.bin").write_bytes(b"\xff\xfe\x00\x81")
    for name, message in (("none.txt", "cannot read the camera file"), ("camera.bin", "is not text")):
        with pytest.raises(InvalidRequest, match=message):
            read_camera(tmp_path / name)


# --- paths -----------------------------------------------------------------------------------------


@pytest.mark.feature("K008")
def test_the_first_camera_is_the_world() -> None:
    moved = path("zoom-in").then(path("pan-left + roll-cw"))
    late = moved.thinned(1)
    late = CameraPath(late.lenses[3:], late.poses[3:], late.times[3:])
    placed = late.relative()
    assert np.array_equal(placed[0], np.eye(4))
    square = np.concatenate([late.poses, np.tile([[[0, 0, 0, 1]]], (len(late), 1, 1))], axis=1)
    np.testing.assert_allclose(placed[4], square[0] @ np.linalg.inv(square[4]), atol=1e-12)


@pytest.mark.feature("K012")
def test_poses_with_times_or_a_rate_are_thinned_and_others_are_not(tmp_path: Path) -> None:
    table = path("pan-left", 24).rows()
    plain = [tuple(row) for row in table.tolist()]
    shift = [row[10] for row in plain]

    def kept(**options: Any) -> list[float]:
        found = camera_path(parse(CameraOptions, options), frames=49, fps=8)
        return [float(x) for x in found.poses[:, 0, 3]]

    assert kept(poses=plain) == shift
    assert kept(poses=plain, fps=24) == shift[::3]
    table[:, 0] = np.arange(24) * 33_366  # microseconds at 29.97 frames/s
    assert kept(poses=[tuple(row) for row in table.tolist()]) == shift[::3]
    (tmp_path / "path.txt").write_text(camera_text(path("pan-left", 24)))
    assert kept(path=tmp_path / "path.txt", fps=16) == pytest.approx(shift[::2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no camera path is given"),
        ({"path": "a.txt", "move": "pan-left"}, "'path' and 'move' exclude each other"),
        ({"path": "a.txt", "speed": 2}, "'speed' is for a 'move'"),
        ({"move": "pan-lfet"}, "Did you mean 'pan-left'"),
        ({"move": "pan-left", "focal": 0}, "must be more than 0"),
        ({"move": "pan-left", "speed": float("nan")}, "speed"),
        ({"path": "a.txt", "fps": 0}, "must be more than 0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse(CameraOptions, options)
    assert message in caught.value.message


# --- rays ------------------------------------------------------------------------------------------


@pytest.mark.feature("K006")
def test_rays_of_a_standing_camera_are_the_pinholes() -> None:
    rays = plucker_rays(path("static", 2), 4, 6)
    fx, fy, cx, cy = pinhole(path("static", 2), 4, 6)[0].tolist()
    ray = torch.tensor([(1.5 - cx) / fx, (2.5 - cy) / fy, 1.0])
    torch.testing.assert_close(rays[0, 3:, 2, 1], ray / ray.norm())
    assert not rays[:, :3].any()
    assert torch.equal(rays[0], rays[1])


@pytest.mark.feature("K006")
@pytest.mark.parametrize(("height", "width"), [(36, 64), (64, 36), (40, 40), (20, 60)])
def test_pixels_stay_square(height: int, width: int) -> None:
    fx, fy, cx, cy = pinhole(path("static", 1), height, width)[0].tolist()
    assert fx == pytest.approx(fy)
    assert (cx, cy) == (width / 2, height / 2)


def test_rays_of_some_frames_are_those_of_all() -> None:
    moving = path("pan-left + roll-cw + zoom-in", 7)
    assert torch.equal(plucker_rays(moving, 4, 4, part=slice(2, 5)), plucker_rays(moving, 4, 4)[2:5])


@pytest.mark.feature("K006")
def test_the_inlet_gets_six_times_the_rays() -> None:
    geometry = Geometry(32, 48, 9)
    moving = path("pan-left", 9)
    value = camera_map(moving, geometry, VAE)
    assert value.shape == (1, 6, 3, 4, 6)
    full = plucker_rays(moving, 32, 48).movedim(0, 1)[None]
    wanted = VAE.resize_map(full, (3, 4, 6))  # type: ignore[attr-defined]
    torch.testing.assert_close(value, SCALE * wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.feature("K012")
def test_short_paths_are_stretched_and_long_ones_cut() -> None:
    geometry = Geometry(16, 16, 9)
    whole = camera_map(path("pan-left", 9), geometry, VAE)
    assert torch.equal(camera_map(path("pan-left", 9).then(path("zoom-in", 9)), geometry, VAE), whole)
    short = camera_map(path("pan-left", 9).thinned(2), geometry, VAE)
    assert short.shape == whole.shape
    assert torch.equal(short[:, :, 0], whole[:, :, 0])
    assert (short[:, :, 2] - whole[:, :, 2]).abs().max() < 0.25 * whole[:, :3, 2].abs().max()
    one = camera_map(path("pan-left", 1), geometry, VAE)
    assert torch.equal(one, camera_map(path("static", 9), geometry, VAE))
    assert camera_map(path("pan-left", 9), Geometry(16, 16, 1), VAE).shape == (1, 6, 1, 2, 2)


@pytest.mark.feature("K006")
def test_a_wide_inlet_gets_every_frame() -> None:
    geometry = Geometry(16, 24, 9)
    moving = path("pan-left + roll-cw", 9)
    packed = camera_map(moving, geometry, VAE, channels=24)
    assert packed.shape == (1, 24, 3, 2, 3)
    rays = plucker_rays(moving, 16, 24)
    small = torch.nn.functional.interpolate(rays, (2, 3), mode="bilinear", align_corners=False)
    unpacked = packed.reshape(6, 4, 3, 2, 3)
    for frame in range(1, 9):
        latent, place = divmod(frame + 3, 4)
        torch.testing.assert_close(unpacked[:, place, latent], SCALE * small[frame])
    for place in range(4):
        torch.testing.assert_close(unpacked[:, place, 0], SCALE * small[0])
    for channels in (7, 12, 48):
        with pytest.raises(IncompatibleConditions, match=f"the inlet 'camera' has '{channels}' channels"):
            camera_map(moving, geometry, VAE, channels=channels)
