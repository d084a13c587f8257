"""The conditioner `trajectory`: paths of things that move, drawn as a control video."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_control.control_video import INLET, control_condition
from easyanimate_control.trajectory.heat import heat_video, radius_of
from easyanimate_control.trajectory.tracks import Tracks, parse_tracks, read_tracks
from easyanimate_core.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_control.options import TrajectoryOptions
    from easyanimate_core.data import Condition, Reference, State
    from easyanimate_core.interfaces import Toolbox
    from easyanimate_core.request import GenerationRequest

__all__ = ["Trajectory", "given_tracks", "trajectory_video"]


class Trajectory:
    """Feeds the inlet `control` with soft spots that move along the given paths."""

    def __init__(self, options: TrajectoryOptions) -> None:
        self.options = options

    def inlets(self) -> tuple[str, ...]:
        """`control`."""
        return (INLET,)

    def reference(self, request: GenerationRequest) -> Reference | None:
        """`None`: paths are brought to the size of the result. Reads them, so that a mistake is found early.

        Raises:
            InvalidRequest: the file is missing or does not hold tracks, or all of one is outside the frame.
        """
        tracks = given_tracks(self.options)
        if tracks.height is not None and tracks.width is not None:
            tracks.checked(tracks.height, tracks.width)
        elif request.size is not None:
            tracks.checked(request.size.height, request.size.width)
        return None

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """The encoded heat video, one for the whole batch.

        Raises:
            InvalidRequest: as `reference`, or the frames are too small for spots.
        """
        geometry = state.geometry
        video = trajectory_video(given_tracks(self.options), geometry.frames, geometry.height, geometry.width)
        return (control_condition(video[None], toolbox),)


def given_tracks(options: TrajectoryOptions) -> Tracks:
    """The tracks that options name or hold.

    Raises:
        InvalidRequest: the file is missing, or does not hold tracks.
    """
    said = options.points
    tracks = read_tracks(said) if isinstance(said, str) else parse_tracks(said, where="'points'")
    return tracks if options.size is None else Tracks(tracks.paths, options.size.height, options.size.width)


def trajectory_video(tracks: Tracks, frames: int, height: int, width: int) -> Tensor:
    """Tracks, brought to a size and spread over a clip, as a control video.

    Returns:
        `(3, frames, height, width)` float32 in 0…1.

    Raises:
        InvalidRequest: all of a track is outside the frame, or the frame is too small to draw a spot in.
    """
    if 2 * radius_of(height, width) <= 3:
        raise InvalidRequest(f"a frame of '{height}x{width}' is too small for a trajectory", "Take a larger size.")
    fitted = tracks.fitted(height, width).checked(height, width)
    return heat_video(fitted.spread(frames), height, width)
