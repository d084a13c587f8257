"""Heat videos and overlays against recorded ones. Source: tests/goldens/trajectory."""

from __future__ import annotations

import pytest
from torch import Tensor

from easyanimate_control.overlay import overlay
from easyanimate_control.trajectory.heat import heat_video, spot
from easyanimate_control.trajectory.tracks import parse_tracks
from golden import Call, assert_close, load_case

CASE = load_case("trajectory")


def as_recorded(video: Tensor) -> Tensor:
    """`(3, F, H, W)` to `(F, H, W, 3)`."""
    return video.permute(1, 2, 3, 0)


def outputs(call: Call) -> dict[str, Tensor]:
    said = call.kwargs
    if call.op == "gaussian_heatmap":
        return {"heatmap": spot(said["size"])}
    if call.op == "trajectory":
        tracks = parse_tracks(said["coordinates"])
        video = heat_video(tracks.spread(len(tracks.paths[0])), said["height"], said["width"])
        return {"images": as_recorded(video)[: said.get("frames_kept")]}
    first, second = (call.inputs[name].permute(3, 0, 1, 2) for name in ("video_1", "video_2"))
    return {"images": as_recorded(overlay(first, second))}


@pytest.mark.feature("K004", "K005", "K013")
@pytest.mark.parametrize("call", CASE.calls, ids=str)
def test_pictures_are_as_recorded(call: Call) -> None:
    assert_close(call, outputs(call))
