"""The preprocessor `canny`: thin white edges on black (Canny, "A Computational Approach to Edge Detection", 1986)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from easyanimate_control.preprocess.frames import each_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from easyanimate_control.preprocess.options import CannyOptions

__all__ = ["Canny"]


class Canny:
    """Edges of the grey picture, by OpenCV."""

    def __init__(self, options: CannyOptions) -> None:
        self.options = options

    def __call__(self, frames: Tensor) -> Tensor:
        """`(F, 3, H, W)` in 0…1 to edges of the same shape: 0 or 1."""
        return each_frame(frames, self._edges)

    def _edges(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        if self.options.blur:
            grey = cv2.GaussianBlur(grey, (0, 0), self.options.blur)
        return np.asarray(cv2.Canny(grey, self.options.low, self.options.high), dtype=np.uint8)
