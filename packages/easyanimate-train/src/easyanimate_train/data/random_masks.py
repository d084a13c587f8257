"""Random masks for image-to-video and inpainting training: which pixels of a clip are given and which are to be made.

Source: the training of EasyAnimate from V5 on, its ten kinds of mask and how often each is drawn. Here every draw comes
from one generator, and shapes are painted for all pixels at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["KINDS", "PICTURE_KINDS", "draw_kind", "random_mask"]

KINDS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "box": 0.05,
        "all": 0.20,
        "after_start": 0.20,
        "between": 0.20,
        "box_in_time": 0.05,
        "pixels": 0.05,
        "small_boxes": 0.05,
        "ellipse": 0.10,
        "circle": 0.05,
        "frames": 0.05,
    }
)
"""Kinds of mask of a clip, and how often each is drawn: `all` is text to video, `after_start` continues a first picture
(or up to four), `between` connects first and last ones."""

PICTURE_KINDS: Final[Mapping[str, float]] = MappingProxyType({"box": 0.20, "all": 0.80})
"""Kinds of mask of a single picture, and how often each is drawn."""


def _whole(low: int, high: int, rng: Generator) -> int:
    """A whole number in `low` … `high − 1`; `low` when there is no other."""
    return int(torch.randint(low, max(high, low + 1), (), generator=rng))


def _plane(height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.arange(height)[:, None], torch.arange(width)[None]


def _box(height: int, width: int, rng: Generator) -> Tensor:
    """A box about a random centre, a quarter to three quarters of each side, cut off at the edges."""
    y, x = _plane(height, width)
    row, column = _whole(0, height, rng), _whole(0, width, rng)
    half_width = _whole(width // 4, width // 4 * 3, rng) // 2
    half_height = _whole(height // 4, height // 4 * 3, rng) // 2
    inside = (row - half_height <= y) & (y < row + half_height) & (column - half_width <= x) & (x < column + half_width)
    return inside


def _ellipse(height: int, width: int, rng: Generator, *, circle: bool) -> Tensor:
    y, x = _plane(height, width)
    row, column = _whole(0, height, rng), _whole(0, width, rng)
    side = min(height, width)
    a = _whole(side // 8, side // 4, rng)
    b = a if circle else _whole(side // 8, side // 4, rng)
    return ((x - column) / max(a, 1)) ** 2 + ((y - row) / max(b, 1)) ** 2 < 1


def _small_boxes(frames: int, height: int, width: int, rng: Generator) -> Tensor:
    """Boxes of up to a quarter of each side, each wholly inside, on some of the frames."""
    y, x = _plane(height, width)
    mask = torch.zeros(frames, height, width, dtype=torch.bool)
    count = _whole(1, max(frames // 2, 1) + 1, rng)
    for frame in torch.randperm(frames, generator=rng)[:count].tolist():
        h, w = _whole(1, height // 4 + 1, rng), _whole(1, width // 4 + 1, rng)
        top, left = _whole(0, height - h + 1, rng), _whole(0, width - w + 1, rng)
        mask[frame] = (top <= y) & (y < top + h) & (left <= x) & (x < left + w)
    return mask


def _in_time(kind: str, frames: int, rng: Generator) -> Tensor:
    """Hidden frames `(F,)` of the kinds that hide whole frames, or limit a box in time."""
    time = torch.arange(frames)
    if kind == "after_start":
        return time >= _whole(1, 5, rng)
    if kind == "between":
        given = _whole(1, 5, rng)
        return (time >= given) & (time < frames - given)
    if kind == "box_in_time":
        first, last = _whole(0, frames // 2, rng), _whole(frames // 2, frames, rng)
        return (time >= first) & (time < last)
    if kind == "frames":
        return torch.rand(frames, generator=rng) < 0.5
    return torch.ones(frames, dtype=torch.bool)


def draw_kind(frames: int, rng: Generator) -> str:
    """A kind of mask, drawn by its share."""
    shares = KINDS if frames > 1 else PICTURE_KINDS
    return list(shares)[int(torch.multinomial(torch.tensor(list(shares.values())), 1, generator=rng))]


def random_mask(frames: int, height: int, width: int, rng: Generator, *, kind: str | None = None) -> Tensor:
    """One mask.

    Args:
        frames: frames of the clip.
        height: of a frame in pixels, at least 4.
        width: of a frame in pixels, at least 4.
        rng: every draw comes from it.
        kind: one of `KINDS`; drawn when `None`.

    Returns:
        `(F, 1, H, W)` float32: 1 where pixels are to be made, 0 where they are given.
    """
    kind = kind or draw_kind(frames, rng)
    in_space: Mapping[str, Callable[[], Tensor]] = {
        "box": lambda: _box(height, width, rng),
        "box_in_time": lambda: _box(height, width, rng),
        "ellipse": lambda: _ellipse(height, width, rng, circle=False),
        "circle": lambda: _ellipse(height, width, rng, circle=True),
        "pixels": lambda: torch.rand(frames, height, width, generator=rng) < 0.5,
        "small_boxes": lambda: _small_boxes(frames, height, width, rng),
    }
    painted = in_space[kind]() if kind in in_space else torch.ones(height, width, dtype=torch.bool)
    hidden = _in_time(kind, frames, rng)
    return (painted.expand(frames, -1, -1) & hidden[:, None, None]).float()[:, None]
