"""Pictures and videos as people give them (paths, PIL images, arrays, tensors) to frames of the size that is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from easyanimate_core.errors import UnreadableMedia
from easyanimate_core.media.read import VideoFacts, frame_stride, probe_video, read_image, read_video

__all__ = [
    "Footage",
    "fit_clip",
    "fit_picture",
    "is_video",
    "probe",
    "read_clip",
    "read_picture",
    "to_bytes",
    "unit_picture",
]

_MOVING: Final = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


@dataclass(frozen=True, slots=True)
class Footage:
    """A video before it is resized.

    Attributes:
        frames: `(F, H, W, 3)` uint8, or float32 in 0…1, at the request's frame rate.
        fps: what the source had; `None` when it does not say.
    """

    frames: NDArray[Any]
    fps: float | None


def is_video(media: object) -> bool:
    """Whether a path names a video by its suffix, or an object has frames."""
    return media.lower().endswith(_MOVING) if isinstance(media, str) else hasattr(media, "frames")


def read_picture(picture: Any) -> NDArray[Any]:
    """A `Picture` as `(H, W, 3)`, uint8 or float32 in 0…1.

    Raises:
        UnreadableMedia: the file is missing, damaged, or no picture; the array has another shape or type.
    """
    if isinstance(picture, str):
        return read_image(picture)
    if hasattr(picture, "convert"):
        return np.array(picture.convert("RGB"))
    array = _array(picture)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] != 3:
        raise UnreadableMedia(
            f"a picture has the shape '{_shape(picture)}'", "Give an array (height, width, 3) or a tensor (3, …)."
        )
    return array


def read_clip(clip: Any, *, fps: float, frames: int) -> Footage:
    """A `Clip` at a frame rate: of a source with more frames per second, only every n-th frame is kept.

    Args:
        clip: what the user gave.
        fps: frames per second of the result; arrays and tensors do not know theirs and are taken as they are.
        frames: at most this many are read.

    Raises:
        UnreadableMedia: the file is missing, damaged, or no video; the array has another shape or type.
    """
    if isinstance(clip, str):
        pixels, source = read_video(clip, max_frames=frames, fps=fps)
        return Footage(pixels, source)
    if hasattr(clip, "frames"):
        array = _array(clip.frames[0])
        return Footage(array[:: frame_stride(clip.fps, fps)][:frames], clip.fps)
    array = _array(clip)
    if array.ndim != 4 or array.shape[-1] != 3:
        raise UnreadableMedia(
            f"a video has the shape '{_shape(clip)}'", "Give an array (frames, height, width, 3) or a tensor (3, …)."
        )
    return Footage(array[:frames], None)


def probe(clip: Any) -> VideoFacts:
    """Size, length and frame rate of a `Clip`, without decoding a file's frames; the rate of an array is 0.

    Raises:
        UnreadableMedia: as `read_clip`.
    """
    if isinstance(clip, str):
        return probe_video(clip)
    found = read_clip(clip, fps=1e9, frames=1 << 30)
    frames, height, width = found.frames.shape[:3]
    return VideoFacts(height, width, frames, found.fps or 0.0)


def fit_picture(pixels: NDArray[Any], height: int, width: int) -> Tensor:
    """A picture `(H, W, 3)` to `(3, height, width)` float32 in 0…1, by Pillow's bicubic filter.

    Resizing works on 8 bits, as it did for released models; floats of the right size keep their precision.
    """
    if pixels.shape[:2] != (height, width):
        resized = Image.fromarray(to_bytes(pixels)).resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(resized)
    return _unit(pixels).movedim(-1, 0)


def unit_picture(pixels: NDArray[Any]) -> Tensor:
    """A picture `(H, W, 3)` to `(3, H, W)` float32 in 0…1, as large as it is."""
    return _unit(pixels).movedim(-1, 0)


def fit_clip(frames: NDArray[Any], height: int, width: int) -> Tensor:
    """Frames `(F, H, W, 3)` to `(3, F, height, width)` float32 in 0…1: bilinear, not smoothed, rounded to 8 bits
    where they had 8 bits, as released models had it."""
    if frames.shape[1:3] == (height, width):
        return _unit(frames).movedim(-1, 0)
    # Frame by frame: all of them as floats at the source's size may be gigabytes.
    return torch.stack([_bilinear(frame, height, width) for frame in frames], dim=1)


def _bilinear(frame: NDArray[Any], height: int, width: int) -> Tensor:
    pixels = F.interpolate(_unit(frame).movedim(-1, 0)[None], (height, width), mode="bilinear", align_corners=False)[0]
    return (pixels * 255).round() / 255 if frame.dtype == np.uint8 else pixels


def to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 as it is; floats in 0…1 truncated, not rounded, to 8 bits, as videos are written."""
    if pixels.dtype == np.uint8:
        return pixels
    return (pixels.clip(0, 1) * np.float32(255)).astype(np.uint8)


def _unit(pixels: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.array(pixels))  # a copy: Pillow's arrays are read-only
    return tensor.float() / 255 if pixels.dtype == np.uint8 else tensor


def _array(pixels: Any) -> NDArray[Any]:
    """An array, or a tensor with its channels moved from first to last; uint8 or float32."""
    array: NDArray[Any]
    if isinstance(pixels, Tensor):
        tensor = pixels.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        array = (tensor.movedim(0, -1) if tensor.ndim > 2 else tensor).numpy()
    else:
        array = np.asarray(pixels)
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UnreadableMedia(f"pixels have the type '{array.dtype}'", "Give uint8, or floats in 0…1.")
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # NaN fails both
        raise UnreadableMedia(
            f"pixels go from '{array.min():g}' to '{array.max():g}'", "Floats are in 0…1; give uint8 for 0…255."
        )
    return array.astype(np.float32)


def _shape(pixels: Any) -> str:
    return "x".join(str(side) for side in pixels.shape)
