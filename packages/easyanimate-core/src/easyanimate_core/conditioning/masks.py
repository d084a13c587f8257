"""Masks as people paint them: white is made anew, all else is kept."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from easyanimate_core.conditioning.pixels import is_video, probe, read_clip, read_picture, to_bytes
from easyanimate_core.errors import InvalidRequest

__all__ = ["WHITE", "hidden_where_white", "mask_size", "read_mask"]

WHITE: Final = 240
"""Grey values, of 255, from which on a pixel is made anew."""


def read_mask(mask: Any, *, fps: float, frames: int) -> NDArray[Any]:
    """A `MaskMedia` as `(1 or F, H, W)`: grey uint8, or floats in 0…1.

    Raises:
        UnreadableMedia: the file is missing, damaged, or neither picture nor video.
        InvalidRequest: a mask video is shorter than `frames`.
    """
    if is_video(mask):
        found = read_clip(mask, fps=fps, frames=frames).frames
    elif isinstance(mask, str) or hasattr(mask, "convert"):
        found = read_picture(mask)[None]
    else:
        found = _painted(mask)
    if 1 < found.shape[0] < frames:
        raise InvalidRequest(
            f"the mask has '{found.shape[0]}' frames and the video {frames}",
            "Give a picture, or a mask video of the same length.",
        )
    return found[:frames] if found.ndim == 3 else _grey(found[:frames])


def mask_size(mask: Any) -> tuple[int, int]:
    """Height and width of a `MaskMedia`, without decoding a whole video.

    Raises:
        UnreadableMedia: as `read_mask`.
    """
    if is_video(mask):
        facts = probe(mask)
        return facts.height, facts.width
    _, height, width = read_mask(mask, fps=1.0, frames=1).shape
    return height, width


def hidden_where_white(mask: NDArray[Any], frames: int, height: int, width: int) -> Tensor:
    """A mask `(1 or F, H, W)` to `(1, 1, frames, height, width)`: 1 where it is white, 0 where pixels are kept.

    Resized by Pillow's bicubic filter before the threshold, as masks of released models were.
    """
    if mask.shape[1:] == (height, width):
        white = mask >= (WHITE if mask.dtype == np.uint8 else np.float32(WHITE / 255))
    else:
        resized = (Image.fromarray(frame).resize((width, height)) for frame in to_bytes(mask))
        white = np.stack([np.asarray(frame) for frame in resized]) >= WHITE
    hidden = torch.from_numpy(white).float()
    return hidden.expand(frames, height, width)[None, None]


def _painted(mask: Any) -> NDArray[Any]:
    """An array `(H, W)` or `(F, H, W)`, or a tensor with one channel in front, to `(F, H, W)`."""
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu()
        mask = mask[0] if mask.ndim > 2 and mask.shape[0] == 1 else mask
        mask = (mask.float() if mask.is_floating_point() else mask).numpy()
    array = np.asarray(mask)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.ndim not in (2, 3) or not (array.dtype == np.uint8 or np.issubdtype(array.dtype, np.floating)):
        shape = "x".join(str(side) for side in array.shape)
        raise InvalidRequest(
            f"the mask has the shape '{shape}' and the type '{array.dtype}'",
            "Give (height, width) or (frames, height, width), uint8 or floats in 0…1.",
        )
    return array if array.ndim == 3 else array[None]


def _grey(frames: NDArray[Any]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in to_bytes(frames)])
