"""The preprocessor `lines`: straight white lines on black, as for models trained on M-LSD.

The detector is LSD (Grompone von Gioi et al., "LSD: a Line Segment Detector", IPOL 2012), which needs no weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from easyanimate_control.preprocess.frames import each_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from easyanimate_control.preprocess.options import LinesOptions

__all__ = ["Lines"]


class Lines:
    """Line segments of the grey picture, by OpenCV."""

    def __init__(self, options: LinesOptions) -> None:
        self.options = options
        self._detector = cv2.createLineSegmentDetector()

    def __call__(self, frames: Tensor) -> Tensor:
        """`(F, 3, H, W)` in 0…1 to lines of the same shape: 0 or 1."""
        return each_frame(frames, self._lines)

    def _lines(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = picture.shape[:2]
        drawn = np.zeros((height, width), dtype=np.uint8)
        found: Any = self._detector.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))[0]
        if found is None:  # no line at all
            return drawn
        shortest = self.options.shortest * float(np.hypot(height, width))
        for x1, y1, x2, y2 in np.asarray(found, dtype=np.float64).reshape(-1, 4):
            if np.hypot(x2 - x1, y2 - y1) >= shortest:
                ends = (round(x1), round(y1)), (round(x2), round(y2))
                cv2.line(drawn, *ends, 255, self.options.width)
        return drawn
