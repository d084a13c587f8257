"""Scenes of one moving shape, drawn from signed distances with anti-aliasing.

Lengths are shares of the frame's side, so the world has no resolution of its own. Shapes of one size have
one area: a size is told by area, a shape by outline.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

import torch
from torch import Generator, Tensor

__all__ = [
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SIZES",
    "Placement",
    "Scene",
    "all_scenes",
    "distance",
    "is_held_out",
    "outline",
    "place",
    "render",
]

SHAPES = ("circle", "square", "triangle", "star")
"""Outlines."""

COLOURS = MappingProxyType(
    {
        "red": (0.86, 0.13, 0.15),
        "green": (0.13, 0.62, 0.25),
        "blue": (0.13, 0.29, 0.87),
        "yellow": (0.98, 0.85, 0.15),
        "orange": (0.98, 0.53, 0.09),
        "purple": (0.55, 0.20, 0.72),
        "white": (0.97, 0.97, 0.97),
        "black": (0.05, 0.05, 0.06),
    }
)
"""Colours of objects and backgrounds, RGB in 0…1."""

SIZES = MappingProxyType({"small": 10 / 64, "large": 15 / 64})
"""Mean radius of the circle of equal area, as a share of the side."""

MOTIONS = ("left", "right", "up", "down", "growing", "shrinking", "still")
"""What the shape does during the clip."""

_DIRECTION = MappingProxyType({"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)})
_TRAVEL = 13 / 64
_GROWTH = 1.5
_STAR_INNER = 0.45


@dataclass(frozen=True, slots=True, order=True)
class Scene:
    """What a caption says: the five attributes that are measured."""

    shape: str
    colour: str
    background: str
    size: str
    motion: str


@dataclass(frozen=True, slots=True)
class Placement:
    """What a caption leaves open.

    Attributes:
        centre: `(x, y)` of the middle of the path, shares of the side.
        travel: length of the path, share of the side.
        scale: factor on the radius.
    """

    centre: tuple[float, float] = (0.5, 0.5)
    travel: float = _TRAVEL
    scale: float = 1.0


def all_scenes() -> tuple[Scene, ...]:
    """Every combination of attributes whose colours differ: 3,136 scenes, in a fixed order."""
    return tuple(
        Scene(*values) for values in product(SHAPES, COLOURS, COLOURS, SIZES, MOTIONS) if values[1] != values[2]
    )


def is_held_out(scene: Scene) -> bool:
    """Whether the combination is kept from training: a tenth of all, chosen by hash."""
    text = "|".join((scene.shape, scene.colour, scene.background, scene.size, scene.motion))
    return hashlib.sha256(text.encode()).digest()[0] % 10 == 0


def place(rng: Generator, spread: float = 2 / 64) -> Placement:
    """A random placement: centre within `spread` of the middle, path ± 8 %, radius ± 4 %."""
    x, y, travel, scale = (torch.rand(4, generator=rng) * 2 - 1).tolist()
    return Placement((0.5 + x * spread, 0.5 + y * spread), travel=_TRAVEL * (1 + 0.08 * travel), scale=1 + 0.04 * scale)


def _polygon(points: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a closed polygon with corners `(n, 2)`; negative inside."""
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(points.tolist(), points.roll(-1, 0).tolist(), strict=True):
        ex, ey = bx - ax, by - ay
        t = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, (x - ax - t * ex) ** 2 + (y - ay - t * ey) ** 2)
        crosses = (ay > y) != (by > y)
        if ey:
            inside ^= crosses & (x < ax + (y - ay) / ey * ex)
    return nearest.sqrt() * torch.where(inside, -1.0, 1.0)


def _corners(shape: str) -> Tensor:
    """Corners of the outline whose area equals that of the unit circle; y points down."""
    if shape == "triangle":
        count, radii = 3, [math.sqrt(4 * math.pi / (3 * math.sqrt(3)))]
    else:
        outer = math.sqrt(math.pi / (5 * _STAR_INNER * math.sin(math.pi / 5)))
        count, radii = 10, [outer, outer * _STAR_INNER]
    angles = [2 * math.pi * i / count - math.pi / 2 for i in range(count)]
    return torch.tensor([[radii[i % len(radii)] * f(a) for f in (math.cos, math.sin)] for i, a in enumerate(angles)])


def distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to the outline with the area of the unit circle, centred at 0; negative inside."""
    if shape == "circle":
        return torch.hypot(x, y) - 1
    if shape == "square":
        half = math.sqrt(math.pi) / 2
        dx, dy = x.abs() - half, y.abs() - half
        return torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0)
    return _polygon(_corners(shape), x, y)


def _path(scene: Scene, placement: Placement, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centre x, centre y and radius of every frame `(F,)`, shares of the side."""
    time = torch.linspace(-0.5, 0.5, frames) if frames > 1 else torch.zeros(1)
    dx, dy = _DIRECTION.get(scene.motion, (0.0, 0.0))
    growth = {"growing": 1.0, "shrinking": -1.0}.get(scene.motion, 0.0)
    radius = SIZES[scene.size] * placement.scale * _GROWTH ** (growth * time)
    x, y = placement.centre
    return x + dx * placement.travel * time, y + dy * placement.travel * time, radius


def render(scenes: Sequence[Scene], placements: Sequence[Placement], *, frames: int = 17, side: int = 64) -> Tensor:
    """Draw clips.

    Args:
        scenes: what to draw.
        placements: where, one per scene.
        frames: frames per clip; the whole motion happens in them.
        side: height and width in pixels.

    Returns:
        `(B, 3, F, side, side)` float32 in 0…1.
    """
    clips = []
    for scene, placement in zip(scenes, placements, strict=True):
        cover = (0.5 - _distances(scene, placement, frames, side)).clamp(0, 1)
        paint, ground = (torch.tensor(COLOURS[c])[:, None, None, None] for c in (scene.colour, scene.background))
        clips.append(ground + (paint - ground) * cover)
    return torch.stack(clips)


def outline(
    scenes: Sequence[Scene], placements: Sequence[Placement], *, frames: int = 17, side: int = 64, width: float = 2.0
) -> Tensor:
    """Draw the outlines of shapes, white on black, as a control video shows them.

    Args:
        scenes: what to draw; colours do not matter.
        placements: where, one per scene.
        frames: frames per clip.
        side: height and width in pixels.
        width: of the line in pixels.

    Returns:
        `(B, 3, F, side, side)` float32 in 0…1.
    """
    pairs = zip(scenes, placements, strict=True)
    lines = [(0.5 + width / 2 - _distances(s, p, frames, side).abs()).clamp(0, 1) for s, p in pairs]
    return torch.stack(lines)[:, None].expand(-1, 3, -1, -1, -1).contiguous()


def _distances(scene: Scene, placement: Placement, frames: int, side: int) -> Tensor:
    """Signed distance of every pixel to the outline, in pixels, `(F, side, side)`."""
    grid = (torch.arange(side) + 0.5) / side
    cx, cy, radius = (v[:, None, None] for v in _path(scene, placement, frames))
    x, y = (grid[None, None] - cx) / radius, (grid[None, :, None] - cy) / radius
    return distance(scene.shape, *torch.broadcast_tensors(x, y)) * radius * side
