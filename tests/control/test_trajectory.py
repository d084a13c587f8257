"""Tracks of points: spellings, timing, sizes, and what is drawn. Recorded cases are in test_golden_trajectory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from easyanimate_control.overlay import overlay
from easyanimate_control.trajectory.conditioner import trajectory_video
from easyanimate_control.trajectory.heat import heat_video, radius_of, spot
from easyanimate_control.trajectory.tracks import Tracks, parse_tracks, read_tracks, tracks_json
from easyanimate_core.errors import InvalidRequest


def lists(tracks: Tracks) -> list[Any]:
    return [path.tolist() for path in tracks.paths]


@pytest.mark.feature("K005")
@pytest.mark.parametrize(
    "said",
    [
        [[1, 2], [3, 4]],
        [[[1, 2], [3, 4]]],
        [{"x": 1, "y": 2}, {"x": 3, "y": 4}],
        "[[1, 2], [3, 4]]",
        ["[{'x': 1, 'y': 2}, {'x': 3, 'y': 4}]"],
        '[{"x": 1, "y": 2}, {"x": 3, "y": 4}]',
        {"tracks": [[[1, 2], [3, 4]]]},
    ],
)
def test_spellings_of_one_track(said: Any) -> None:
    assert lists(parse_tracks(said)) == [[[1, 2], [3, 4]]]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    tracks = parse_tracks({"height": 64, "width": 96, "tracks": [[[1, 2.5]], [[3, 4], [5, 6]]]})
    (tmp_path / "tracks.json").write_text(tracks_json(tracks))
    again = read_tracks(tmp_path / "tracks.json")
    assert lists(again) == lists(tracks)
    assert (again.height, again.width) == (64, 96)


@pytest.mark.feature("K005")
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], "has no tracks"),
        ({"points": []}, "has no tracks"),
        ([[]], "track 1 has no points"),
        ([[[1, 2]], 5], "track 2 has no points"),
        ([[[1, 2], [3]]], "track 1, point 2 is '[3]'"),
        ([[[1, "2"]]], "track 1, point 1 is '[1, '2']'"),
        ([{"x": 1}], "point 1 is '{'x': 1}'"),
        ([[[1, 2], [float("nan"), 4]]], "track 1, point 2 is 'nan, 4'"),
        ("[[1, 2]", "is not valid JSON"),
        ("a.b()", "is not valid JSON"),
        ({"height": -1, "width": 8, "tracks": [[[1, 2]]]}, "has the size '-1x8'"),
    ],
)
def test_what_is_no_track(said: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_tracks(said)
    assert message in caught.value.message
    assert caught.value.hint


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "points.bin").write_bytes(b"\xff\xfe\x00\x81")
    for name, message in (("none.json", "cannot read the trajectory"), ("points.bin", "is not text")):
        with pytest.raises(InvalidRequest, match=message):
            read_tracks(tmp_path / name)


@pytest.mark.feature("K004")
def test_a_path_is_spread_evenly_over_the_clip() -> None:
    tracks = parse_tracks([[[0, 0], [8, 4], [8, 8]], [[5, 5]]])
    assert tracks.spread(5).tolist() == [
        [[0, 0], [4, 2], [8, 4], [8, 6], [8, 8]],
        [[5, 5]] * 5,
    ]
    assert tracks.spread(3)[0].tolist() == [[0, 0], [8, 4], [8, 8]]


@pytest.mark.feature("K004")
def test_points_are_brought_to_the_size_that_is_made() -> None:
    given = parse_tracks({"height": 100, "width": 200, "tracks": [[[50, 50]]]})
    assert lists(given.fitted(50, 400)) == [[[100, 25]]]
    assert lists(parse_tracks([[[50, 50]]]).fitted(50, 400)) == [[[50, 50]]]


@pytest.mark.feature("K004")
def test_heat_is_brightest_at_the_points_and_the_same_in_all_channels() -> None:
    tracks = parse_tracks([[[20, 20], [100, 70]], [[100, 20], [20, 70]]])
    video = heat_video(tracks.spread(9), 96, 128)
    assert video.shape == (3, 9, 96, 128)
    assert video.min() == 0
    assert torch.equal(video[0], video[2])
    for track in tracks.spread(9).astype(int):
        for frame, (x, y) in enumerate(track):
            assert video[0, frame, y, x] == video[0, frame].max() > 0.9
    one = heat_video(tracks.spread(9)[:1], 96, 128)
    two = heat_video(tracks.spread(9)[1:], 96, 128)
    assert torch.equal(video, torch.maximum(one, two))


@pytest.mark.feature("K004")
def test_sizes_of_spots() -> None:
    assert radius_of(720, 1280) == 50
    assert radius_of(384, 672) == 26
    assert (spot().shape, spot()[100, 100], spot()[0, 0], spot()[100, 0]) == ((200, 200), 255, 0, 0)
    large = heat_video(parse_tracks([[[640, 360]]]).spread(1), 720, 1280)
    assert large[0, 0, 360, 640] >= 254 / 255


@pytest.mark.feature("K004")
def test_things_may_leave_the_frame_but_not_stay_outside() -> None:
    video = trajectory_video(parse_tracks([[[10, 10], [-500, 10]]]), 3, 96, 128)
    assert video[:, 0].max() > 0.9
    assert not video[:, 1:].any()
    with pytest.raises(
        InvalidRequest, match="no point of track 2 is inside the frame of 96x128; its first is '128, 0'"
    ):
        trajectory_video(parse_tracks([[[10, 10]], [[128, 0], [300, 300]]]), 3, 96, 128)
    with pytest.raises(InvalidRequest, match="'16x16' is too small"):
        trajectory_video(parse_tracks([[[8, 8]]]), 3, 16, 16)


@pytest.mark.feature("K013")
def test_an_overlay_is_the_brighter_of_both_at_the_size_of_the_first() -> None:
    first, second = torch.rand(3, 5, 8, 8), torch.rand(3, 4, 8, 8)
    assert torch.equal(overlay(first, second), torch.maximum(first[:, :4], second))
    small = torch.rand(1, 3, 6, 4, 4)
    large = overlay(torch.zeros(1, 3, 5, 8, 8), small)
    assert torch.equal(large[..., ::2, ::2], small[:, :, :5])
    assert torch.equal(large[..., 1::2, 1::2], small[:, :, :5])


def test_documents_hold_points_and_paths() -> None:
    from easyanimate_control.options import TrajectoryOptions

    options = TrajectoryOptions(points="[[1, 2]]")
    assert json.loads(options.model_dump_json())["points"] == [[1, 2]]
    assert TrajectoryOptions(points=Path("tracks.json")).points == "tracks.json"
    assert np.array_equal(parse_tracks(options.points).paths[0], [[1, 2]])
