"""The conditioner `camera`: a path that the camera follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_control.camera.files import parse_camera, read_camera
from easyanimate_control.camera.moves import parse_moves
from easyanimate_control.camera.path import CameraPath, path_of_moves
from easyanimate_control.camera.rays import RAY, camera_map
from easyanimate_core.data import Condition
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.events import Notice
from easyanimate_core.media.read import frame_stride

if TYPE_CHECKING:
    from easyanimate_control.options import CameraOptions
    from easyanimate_core.data import Reference, State
    from easyanimate_core.interfaces import Denoiser, Toolbox
    from easyanimate_core.request import GenerationRequest

__all__ = ["INLET", "Camera", "camera_path"]

INLET = "camera"
"""The inlet that camera paths feed."""


class Camera:
    """Feeds the inlet `camera` with the Plücker rays of a path, six times as long."""

    def __init__(self, options: CameraOptions) -> None:
        self.options = options

    def inlets(self) -> tuple[str, ...]:
        """`camera`."""
        return (INLET,)

    def reference(self, request: GenerationRequest) -> Reference | None:
        """`None`: a path goes with any size. Reads the file, so that a wrong one is found before the weights are.

        Raises:
            InvalidRequest: the file is missing or does not hold a path, or there are more moves than frames.
        """
        camera_path(self.options, frames=request.frames or len(parse_moves(self.options.move or "")), fps=request.fps)
        return None

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """The rays on the latents' grid, one for the whole batch.

        A `Notice` says when a file has fewer poses than the result has frames: its path is then stretched.

        Raises:
            InvalidRequest: as `reference`.
            IncompatibleConditions: the model's inlet has a width that rays do not make.
        """
        geometry = state.geometry
        path = camera_path(self.options, frames=geometry.frames, fps=state.request.fps)
        if 1 < len(path) < geometry.frames:
            toolbox.events.emit(
                Notice(f"the camera path has {len(path)} poses for {geometry.frames} frames: it is stretched over them")
            )
        value = camera_map(path, geometry, toolbox.vae, channels=_width(toolbox.denoiser))
        return (Condition(INLET, value.to(device=toolbox.device, dtype=toolbox.dtype)),)


def camera_path(options: CameraOptions, *, frames: int, fps: float | None) -> CameraPath:
    """The path that options ask for, with at most `frames` poses.

    Poses of a file or list that have times, as those of RealEstate10K have, or a given `fps`, are thinned to the
    result's frame rate, as a video is; without, each is for one frame of the result. Of what is left, the first ones
    count. The original takes every third pose of any file: `fps=24` does so for results of 8 frames/s.

    Args:
        options: of the conditioner.
        frames: of the result; named moves have one pose for each.
        fps: frames per second of the result; `None` takes every pose.

    Raises:
        InvalidRequest: the file is missing or does not hold a path, or there are more moves than frames.
    """
    if options.move is not None:
        return path_of_moves(parse_moves(options.move), frames, speed=options.speed, focal=options.focal)
    if options.poses:
        path = CameraPath.of_rows(options.poses, where="'poses'")
    elif options.path is not None:
        path = parse_camera(options.path) if options.path.lstrip()[:1] == "[" else read_camera(options.path)
    else:
        raise InvalidRequest("no camera path is given", "Give a file as 'path', or a 'move'.")
    source = options.fps or path.fps
    stride = frame_stride(source, fps) if source is not None and fps is not None else 1
    return path.thinned(stride, frames)


def _width(denoiser: Denoiser) -> int:
    return next((inlet.width for inlet in denoiser.inlets if inlet.name == INLET), RAY)
