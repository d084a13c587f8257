"""Points to heat: the soft spots that released models were trained to follow.

A spot is a Gaussian with a deviation of a fifth of its picture, cut off by a circle, as DragAnything draws it (Wu et
al., 2024); sizes are those of the V5.1 control models.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["heat_video", "radius_of", "spot"]

_SIDE: Final = 200
_DEVIATION: Final = 40.0
_LARGE: Final = 50  # half the side of a spot in a picture of 1280×720
_LEAST: Final = 3  # narrower boxes are not drawn


@cache
def spot(size: int = _SIDE) -> Tensor:
    """A Gaussian spot `(size, size)`: whole numbers 0…255 as float32, brightest in the middle, 0 outside the circle."""
    middle = size // 2
    offsets = torch.arange(size, dtype=torch.float64) - middle
    squared = offsets[:, None] ** 2 + offsets[None, :] ** 2
    heat = torch.exp(-squared / (2 * _DEVIATION**2)) * (squared <= (middle - 1) ** 2)
    return (heat / heat.max() * 255).floor().float()


def radius_of(height: int, width: int) -> int:
    """Half the side of a spot's box in pixels: 50 in a picture of 1280×720, and in proportion to its diagonal."""
    return int(_LARGE * math.sqrt(height * width / (1280 * 720)))


def heat_video(points: NDArray[np.float64], height: int, width: int) -> Tensor:
    """A control video with a spot at every point.

    A spot whose box is cut by the border is squeezed into what is left of it, as it was in training; where three pixels
    or fewer are left, it is not drawn.

    Args:
        points: `(N, F, 2)`: x and y of N things in F frames, in pixels; may be outside.
        height: of a frame in pixels.
        width: of a frame in pixels.

    Returns:
        `(3, F, height, width)` float32 in 0…1, the same in all three channels; overlapping spots do not add up.
    """
    count, frames, _ = points.shape
    video = torch.zeros(frames, height, width)
    radius = radius_of(height, width)
    for thing in range(count):
        for frame in range(frames):
            x, y = (int(value) for value in points[thing, frame])
            left, right = max(x - radius, 0), min(x + radius, width)
            top, bottom = max(y - radius, 0), min(y + radius, height)
            if right - left <= _LEAST or bottom - top <= _LEAST:
                continue
            box = video[frame, top:bottom, left:right]
            torch.maximum(box, _resized(bottom - top, right - left), out=box)
    return (video / 255).expand(3, -1, -1, -1)


@cache
def _resized(height: int, width: int) -> Tensor:
    resized = F.interpolate(spot()[None, None], (height, width), mode="bilinear", align_corners=False)
    return resized[0, 0].round()
