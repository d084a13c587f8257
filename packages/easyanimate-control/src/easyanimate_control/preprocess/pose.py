"""The preprocessor `pose`: coloured stick figures on black, with OpenPose's 18 joints (Cao et al., 2019) and colours.

Networks: YOLOX finds people, RTMPose their joints (Jiang et al., "RTMPose", 2023), both through rtmlib and onnxruntime.
"""

from __future__ import annotations

import math
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from easyanimate_control.preprocess.frames import each_frame
from easyanimate_core.errors import CheckpointNotFound, PluginLoadError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from easyanimate_control.preprocess.options import PoseOptions

__all__ = ["Pose", "draw_people"]

_THICK: Final = 4  # in a picture whose shorter side is 512

# Nose, neck; right shoulder, elbow, wrist; left ones; right hip, knee, ankle; left ones; eyes and ears, right first.
_LIMBS: Final = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

_COLOURS: Final = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip


class Pose:
    """All people in every frame."""

    def __init__(self, options: PoseOptions) -> None:
        """Load the networks; rtmlib downloads those that are not given and not in its cache.

        Raises:
            PluginLoadError: rtmlib is not installed.
            CheckpointNotFound: a file is missing, is no ONNX network, or cannot be downloaded.
        """
        self.options = options
        body = _rtmlib().Body
        size = body.MODE[options.mode]
        try:
            with redirect_stdout(sys.stderr):  # rtmlib tells what it loads; stdout is for the result's path
                self._body = body(
                    det=options.detector,
                    det_input_size=size["det_input_size"],
                    pose=options.pose,
                    pose_input_size=size["pose_input_size"],
                    mode=options.mode,
                    to_openpose=True,
                    device=options.device,
                )
        except Exception as error:  # onnxruntime and downloads raise classes of their own
            reason = " ".join(str(error).split())[:200]
            hint = "Give ONNX files as 'detector' and 'pose', or let rtmlib download its own."
            raise CheckpointNotFound(f"cannot load the pose networks: {reason}", hint) from error

    def __call__(self, frames: Tensor) -> Tensor:
        """`(F, 3, H, W)` in 0…1 to stick figures of the same shape."""
        return each_frame(frames, self._figures)

    def _figures(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        joints, scores = self._body(np.ascontiguousarray(picture[..., ::-1]))  # the networks see BGR
        return draw_people(joints, scores, *picture.shape[:2], confidence=self.options.confidence)


def draw_people(
    joints: NDArray[np.floating], scores: NDArray[np.floating], height: int, width: int, *, confidence: float
) -> NDArray[np.uint8]:
    """Stick figures on black, as control models know them: limbs at 60 % of their colour, joints at all of it.

    Args:
        joints: `(people, 18, 2)`: x and y in pixels, in OpenPose's order.
        scores: `(people, 18)`, 0…1.
        height: of the picture in pixels.
        width: of the picture in pixels.
        confidence: joints with lower scores are not drawn, nor limbs that end in them.

    Returns:
        `(height, width, 3)` RGB.
    """
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    thick = max(1, round(_THICK * min(height, width) / 512))
    for person, sure in zip(joints, scores, strict=True):
        seen = [bool(score >= confidence) for score in sure]
        # One limb less than joints: the last colour is a joint's alone.
        for (start, end), colour in zip(_LIMBS, _COLOURS, strict=False):
            if seen[start] and seen[end]:
                dark = [int(value * 0.6) for value in colour]
                cv2.fillConvexPoly(canvas, _limb(person[start], person[end], thick), dark)
        for place, shown, colour in zip(person, seen, _COLOURS, strict=True):
            if shown:
                cv2.circle(canvas, (round(float(place[0])), round(float(place[1]))), thick, colour, -1)
    return canvas


def _limb(start: NDArray[np.floating], end: NDArray[np.floating], thick: int) -> NDArray[np.int32]:
    """The ellipse between two joints, as a polygon."""
    across, down = (float(value) for value in end - start)
    middle = round(float(start[0] + end[0]) / 2), round(float(start[1] + end[1]) / 2)
    axes = int(math.hypot(across, down) / 2), thick
    angle = int(math.degrees(math.atan2(down, across)))
    return np.asarray(cv2.ellipse2Poly(middle, axes, angle, 0, 360, 1), dtype=np.int32)


def _rtmlib() -> Any:
    """The library, which few people have."""
    try:
        import rtmlib
    except ImportError as error:
        hint = "pip install -U 'easyanimate-control[pose]'"
        raise PluginLoadError(f"'easyanimate-control:pose' needs a library: {error}", hint) from error
    return rtmlib
