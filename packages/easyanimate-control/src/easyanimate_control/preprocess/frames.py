"""What picture-by-picture preprocessors share: tensors to pictures and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["each_frame"]


def each_frame(frames: Tensor, draw: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Tensor:
    """Call a function with every frame.

    Args:
        frames: `(F, 3, H, W)` in 0…1.
        draw: `(H, W, 3)` RGB to `(H, W)` grey or `(H, W, 3)` RGB.

    Returns:
        `(F, 3, H, W)` float32 in 0…1; grey pictures in all three channels.
    """
    pictures = (frames.movedim(1, -1).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    drawn = [draw(np.ascontiguousarray(picture)) for picture in pictures]
    grey = [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1) for picture in drawn]
    return torch.from_numpy(np.stack(grey)).movedim(-1, 1).float() / 255
