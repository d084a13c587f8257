"""Reads shape, colours, size and motion from pixels, with no model in it.

On clips drawn by the world itself every attribute is read right in at least 99.5 of 100 cases (a test).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from easyanimate_train.shapes.world import COLOURS, SHAPES, SIZES, Scene, distance

__all__ = ["Reading", "overlap", "read", "score"]

_SHIFT = 6 / 64
_RATIO = 1.25


@dataclass(frozen=True, slots=True)
class Reading:
    """What the pixels show.

    Attributes:
        scene: the nearest scene; `None` when there is no object.
        outline: mean overlap (intersection over union) of the object with the best outline, 0…1.
    """

    scene: Scene | None
    outline: float


def _nearest_colour(rgb: Tensor) -> str:
    return min(COLOURS, key=lambda name: float((rgb - torch.tensor(COLOURS[name])).pow(2).sum()))


def _border(frames: Tensor) -> Tensor:
    """Median colour `(3,)` of the two outermost rows and columns of all frames `(3, F, H, W)`."""
    edge = torch.ones(frames.shape[-2:], dtype=torch.bool)
    edge[2:-2, 2:-2] = False
    return frames[:, :, edge].flatten(1).median(dim=1).values


def _cover(frames: Tensor, ground: Tensor) -> tuple[Tensor, Tensor] | None:
    """The object's colour `(3,)` and its soft mask `(F, H, W)`, or `None` when nothing stands out."""
    difference = frames - ground[:, None, None, None]
    contrast = difference.norm(dim=0)
    strong = contrast > 0.6 * contrast.flatten().quantile(0.995)
    if contrast.max() < 0.15 or strong.sum() < 8:
        return None
    paint = frames[:, strong].median(dim=1).values
    axis = paint - ground
    return paint, ((difference * axis[:, None, None, None]).sum(0) / axis.pow(2).sum()).clamp(0, 1)


def _measure(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centroid x, y and radius of equal area of each frame, shares of the side."""
    h, w = mask.shape[1:]
    # Faint noise far from the object would pull the centroid: only clear cover counts there.
    clear = mask * (mask > 0.2)
    area = clear.sum((1, 2)).clamp(min=1e-6)
    x = (clear.sum(1) * (torch.arange(w) + 0.5)).sum(1) / area / w
    y = (clear.sum(2) * (torch.arange(h) + 0.5)).sum(1) / area / h
    return x, y, (area / math.pi).sqrt() / w


def _overlap(shape: str, mask: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> float:
    """Mean overlap of the mask with this outline at the measured places."""
    side = mask.shape[-1]
    grid = (torch.arange(side) + 0.5) / side
    dx, dy = torch.broadcast_tensors(
        (grid[None, None] - x[:, None, None]) / radius[:, None, None],
        (grid[None, :, None] - y[:, None, None]) / radius[:, None, None],
    )
    drawn = (0.5 - distance(shape, dx, dy) * radius[:, None, None] * side).clamp(0, 1)
    union = torch.maximum(drawn, mask).sum((1, 2))
    return float((torch.minimum(drawn, mask).sum((1, 2)) / union).mean())


def _motion(x: Tensor, y: Tensor, radius: Tensor) -> str:
    span = max(len(x) // 6, 1)

    def change(v: Tensor) -> float:
        return float(v[-span:].mean() - v[:span].mean())

    dx, dy = change(x), change(y)
    if max(abs(dx), abs(dy)) > _SHIFT:
        if abs(dx) > abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"
    ratio = math.exp(change(radius.clamp(min=1e-4).log()))
    if ratio > _RATIO:
        return "growing"
    return "shrinking" if ratio < 1 / _RATIO else "still"


def read(frames: Tensor) -> Reading:
    """Read one clip.

    Args:
        frames: `(3, F, H, W)` in 0…1, `H = W`.
    """
    frames = frames.float().cpu()
    ground = _border(frames)
    found = _cover(frames, ground)
    if found is None:
        return Reading(None, 0.0)
    paint, mask = found
    x, y, radius = _measure(mask)
    overlaps = {shape: _overlap(shape, mask, x, y, radius) for shape in SHAPES}
    shape = max(overlaps, key=lambda name: overlaps[name])
    mean_radius = float(radius.clamp(min=1e-4).log().mean().exp())
    middle = math.sqrt(SIZES["small"] * SIZES["large"])
    scene = Scene(
        shape,
        _nearest_colour(paint),
        _nearest_colour(ground),
        "small" if mean_radius < middle else "large",
        _motion(x, y, radius),
    )
    return Reading(scene, overlaps[shape])


def overlap(frames: Tensor, mask: Tensor) -> float:
    """Mean overlap (intersection over union), 0…1, of the clip's object with where it should be.

    Args:
        frames: `(3, F, H, W)` in 0…1.
        mask: `(F, H, W)` in 0…1.
    """
    frames = frames.float().cpu()
    found = _cover(frames, _border(frames))
    if found is None:
        return 0.0
    seen = found[1]
    return float((torch.minimum(seen, mask).sum((1, 2)) / torch.maximum(seen, mask).sum((1, 2))).mean())


def score(pairs: Iterable[tuple[Scene, Reading]]) -> Mapping[str, float]:
    """Percent right per attribute and for all at once, and the mean outline overlap in percent.

    Raises:
        ValueError: no pairs.
    """
    fields = ("shape", "colour", "background", "size", "motion")
    rows = [
        ([got.scene is not None and getattr(got.scene, f) == getattr(want, f) for f in fields], got.outline)
        for want, got in pairs
    ]
    if not rows:
        raise ValueError("nothing to score")
    percent = {f: 100 * sum(hits[i] for hits, _ in rows) / len(rows) for i, f in enumerate(fields)}
    percent["all"] = 100 * sum(all(hits) for hits, _ in rows) / len(rows)
    percent["outline"] = 100 * sum(outline for _, outline in rows) / len(rows)
    return percent
