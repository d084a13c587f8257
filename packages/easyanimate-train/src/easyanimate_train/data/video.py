"""Video and image files with captions, listed in the internal JSON format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from easyanimate_core.errors import ConfigError, MediaError, UnreadableMedia
from easyanimate_core.media.read import read_image, read_video
from easyanimate_train.data.options import VideoOptions

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Videos", "clip_frames", "cover"]

_TRIES = 5


def _annotations(options: VideoOptions) -> list[Mapping[str, Any]]:
    path = options.annotations
    try:
        listed = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the annotations '{path}'", f"{error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"'{path}' is not JSON ({error})", "Write a list of objects.") from error
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"'{path}' is not a list of items", "Write a JSON list with at least one object.")
    for number, item in enumerate(listed):
        if not isinstance(item, dict) or not {"file_path", "text"} <= item.keys():
            raise ConfigError(
                f"item {number} of '{path}' lacks 'file_path' or 'text'",
                'Write {"file_path": "a.mp4", "text": "a caption", "type": "video"}.',
            )
        if item.get("type", "image") not in ("video", "image"):
            raise ConfigError(f"item {number} of '{path}' has the type '{item['type']}'", "Use 'video' or 'image'.")
    return listed


def clip_frames(total: int, frames: int, stride: int, trim: tuple[float, float], rng: Generator) -> Tensor:
    """Source indices `(n,)` of one clip, `n ≤ frames`; a shorter source gives fewer frames.

    Raises:
        UnreadableMedia: the trimmed source has not even one frame.
    """
    first, last = int(trim[0] * total), int(trim[1] * total)
    count = min(frames, (last - first + stride - 1) // stride)
    if count < 1:
        raise UnreadableMedia(f"only {total} frames, none is left after trimming", "Use longer videos or less trim.")
    length = (count - 1) * stride + 1
    start = first + int(torch.randint(last - first - length + 1, (), generator=rng))
    return start + torch.arange(count) * stride


def cover(frames: Tensor, height: int, width: int) -> Tensor:
    """Scale `(F, 3, H, W)` to cover the size, crop the centre."""
    scale = max(height / frames.shape[-2], width / frames.shape[-1])
    size = [max(height, round(frames.shape[-2] * scale)), max(width, round(frames.shape[-1] * scale))]
    frames = F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return frames[..., top : top + height, left : left + width]


class Videos:
    """Files read when they are asked for. An unreadable one is replaced by another, a few times."""

    def __init__(self, options: VideoOptions) -> None:
        self.options = options
        self.items = _annotations(options)
        given = options.root != Path()
        self.root = options.root if given else options.annotations.parent

    def __len__(self) -> int:
        return len(self.items)

    def caption(self, index: int, rng: Generator) -> str:
        """The item's text."""
        return str(self.items[index]["text"])

    def pixels(self, index: int, rng: Generator) -> Tensor:
        """One clip `(3, frames, height, width)` in −1…1; the last frame of a short source is repeated.

        Raises:
            UnreadableMedia: several files in a row could not be read.
        """
        errors = []
        for _ in range(_TRIES):
            try:
                return self._clip(self.items[index], rng)
            except MediaError as error:
                errors.append(str(error.message))
                index = int(torch.randint(len(self.items), (), generator=rng))
        raise UnreadableMedia(
            f"{_TRIES} files in a row cannot be read, the last because {errors[-1]}", "Check the dataset."
        )

    def _clip(self, item: Mapping[str, Any], rng: Generator) -> Tensor:
        options = self.options
        path = self.root / str(item["file_path"])
        if item.get("type", "image") == "image":
            frames = torch.from_numpy(read_image(path))[None]
        else:
            source, _ = read_video(path)
            picked = clip_frames(len(source), options.frames, options.stride, options.trim, rng)
            frames = torch.from_numpy(source[picked.numpy()])
        clip = cover(frames.permute(0, 3, 1, 2).float() / 255, options.height, options.width)
        if len(clip) < options.frames:
            clip = torch.cat([clip, clip[-1:].expand(options.frames - len(clip), -1, -1, -1)])
        return clip.transpose(0, 1) * 2 - 1

    def fingerprint(self) -> str:
        """Hash of the options and of each file's name, size and time of change."""
        digest = hashlib.sha256(self.options.model_dump_json().encode())
        for item in self.items:
            path = self.root / str(item["file_path"])
            stat = path.stat() if path.is_file() else None
            digest.update(f"{path}|{stat and (stat.st_size, stat.st_mtime_ns)}|{item['text']}".encode())
        return digest.hexdigest()
