"""Two videos in one: the brighter value of both, everywhere. What is black in one shows the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["overlay"]


def overlay(first: Tensor, second: Tensor) -> Tensor:
    """The maximum of two videos, element by element.

    Args:
        first: `(B, C, F, H, W)` or `(C, F, H, W)`.
        second: of any size and length; it is brought to the first one's size without smoothing, and of both only as
            many frames count as the shorter one has.

    Returns:
        A video of the first one's size.
    """
    frames = min(first.shape[-3], second.shape[-3])
    first, second = first[..., :frames, :, :], second[..., :frames, :, :]
    if first.shape[-2:] != second.shape[-2:]:
        size = (frames, *first.shape[-2:])
        batched = second if second.ndim == 5 else second[None]
        second = F.interpolate(batched, size, mode="nearest").reshape(*second.shape[:-3], *size)
    return torch.maximum(first, second)
