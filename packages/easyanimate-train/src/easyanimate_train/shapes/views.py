"""The same shapes seen by a moving camera: one shape and a chequered ground on a plane that faces the first view.

Source of the conventions: poses are world to camera, x right, y down, z forward, as camera models of V5.1 read them;
a move of speed 1 travels 1.5 units, twice that along the line of sight, and rolls by 60°.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from easyanimate_train.shapes.world import COLOURS, SIZES, Scene, distance

__all__ = ["MOVES", "Camera", "View", "draw_camera", "draw_view", "poses", "read_move", "render_view"]

MOVES = MappingProxyType(
    {
        "pan-left": (1.0, 0.0, 0.0, 0.0),
        "pan-right": (-1.0, 0.0, 0.0, 0.0),
        "pan-up": (0.0, 1.0, 0.0, 0.0),
        "pan-down": (0.0, -1.0, 0.0, 0.0),
        "zoom-in": (0.0, 0.0, -2.0, 0.0),
        "zoom-out": (0.0, 0.0, 2.0, 0.0),
        "roll-ccw": (0.0, 0.0, 0.0, 1.0),
        "roll-cw": (0.0, 0.0, 0.0, -1.0),
    }
)
"""Moves of a camera: direction of the translation (x, y, z), and of the rotation about the line of sight."""

_TRAVEL = 1.5
_ANGLE = math.pi / 3
_DEPTH = 6.0
_CELL = 22 / 64
_DOT = 6 / 64
_CLEAR = 2 / 64


@dataclass(frozen=True, slots=True)
class Camera:
    """What a camera does during the clip, and how it sees.

    Attributes:
        moves: name and speed of each, all at once.
        focal: focal length, as a share of the width of a picture of 16:9.
    """

    moves: tuple[tuple[str, float], ...] = ()
    focal: float = 0.5

    @property
    def lens(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy as shares of the width and height of a picture of 1280×720 pixels."""
        return self.focal, self.focal * 1280 / 720, 0.5, 0.5


@dataclass(frozen=True, slots=True)
class View:
    """What a scene leaves open.

    Attributes:
        centre: of the shape at the first frame, shares of the side.
        phase: of the chequers, shares of a cell.
        scale: factor on the shape's radius.
    """

    centre: tuple[float, float] = (0.5, 0.5)
    phase: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0


def draw_camera(rng: Generator) -> Camera:
    """A random camera: still in a tenth of all cases, two moves at once in a quarter, else one; focal 0.45…0.56."""
    kind = torch.rand((), generator=rng).item()
    count = 0 if kind < 0.1 else 2 if kind < 0.35 else 1
    order = torch.randperm(len(MOVES) // 2, generator=rng).tolist()[:count]
    moves = []
    for axis in order:
        sign, speed = torch.rand(2, generator=rng).tolist()
        moves.append((list(MOVES)[2 * axis + int(sign < 0.5)], 0.5 + 0.5 * speed))
    return Camera(tuple(moves), 0.45 + 0.11 * torch.rand((), generator=rng).item())


def draw_view(rng: Generator, spread: float = 4 / 64) -> View:
    """A random view: centre within `spread` of the middle, any phase of the chequers, radius ± 4 %."""
    x, y, scale = (torch.rand(3, generator=rng) * 2 - 1).tolist()
    phase_x, phase_y = (torch.rand(2, generator=rng) * 2).tolist()
    return View((0.5 + x * spread, 0.5 + y * spread), (phase_x, phase_y), 1 + 0.04 * scale)


def poses(camera: Camera, frames: int) -> Tensor:
    """World to camera `(F, 3, 4)` float64; the first is the identity."""
    moved = torch.zeros(frames, 4, dtype=torch.float64)
    for name, speed in camera.moves:
        share = torch.arange(frames, dtype=torch.float64)[:, None] / frames * speed
        moved += share * torch.tensor(MOVES[name], dtype=torch.float64)
    angle = moved[:, 3] * _ANGLE
    result = torch.zeros(frames, 3, 4, dtype=torch.float64)
    result[:, 0, 0] = result[:, 1, 1] = angle.cos()
    result[:, 0, 1], result[:, 1, 0] = -angle.sin(), angle.sin()
    result[:, 2, 2] = 1.0
    result[:, :, 3] = moved[:, :3] * _TRAVEL
    return result


def _plane(camera: Camera, frames: int, side: int) -> tuple[Tensor, Tensor]:
    """Where each pixel's ray meets the plane, `(F, side, side)` each, shares of the first frame's side."""
    # A square frame is as high as a picture of 16:9.
    pose, focal = poses(camera, frames), camera.lens[1]
    grid = ((torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5) / focal
    depth = (_DEPTH + pose[:, 2, 3])[:, None, None]
    x, y = (
        depth * grid[None, None] - pose[:, 0, 3][:, None, None],
        depth * grid[None, :, None] - pose[:, 1, 3][:, None, None],
    )
    x, y = torch.broadcast_tensors(x, y)
    # The rotation is about the line of sight: its transpose brings camera axes back to the world's.
    cos, sin = pose[:, 0, 0][:, None, None], pose[:, 1, 0][:, None, None]
    scale = focal / _DEPTH
    return ((cos * x + sin * y) * scale + 0.5).float(), ((cos * y - sin * x) * scale + 0.5).float()


def _dots(scene: Scene) -> str:
    """Colour of the dots on the ground: neither that of the ground nor that of the shape."""
    return next(c for c in ("white", "black", "blue") if c not in (scene.colour, scene.background))


def render_view(scene: Scene, view: View, camera: Camera, *, frames: int = 17, side: int = 64) -> Tensor:
    """Draw a clip `(3, F, side, side)` float32 in 0…1; the scene's own motion does not matter."""
    x, y = _plane(camera, frames, side)
    # How many pixels a share of the side has, which is what edges are softened by.
    pixels = (side * (_DEPTH / (_DEPTH + poses(camera, frames)[:, 2, 3])))[:, None, None].float()

    ground, paint, dot = (
        torch.tensor(COLOURS[c])[:, None, None, None] for c in (scene.background, scene.colour, _dots(scene))
    )
    radius = SIZES[scene.size] * view.scale

    def apart(at_x: Tensor, at_y: Tensor) -> Tensor:
        """Distance to the shape's outline, shares of the side."""
        return distance(scene.shape, (at_x - view.centre[0]) / radius, (at_y - view.centre[1]) / radius) * radius

    # Centre of the cell that a pixel lies in: dots that would touch the shape are left out.
    middle_x, middle_y = (
        ((w / _CELL + p).floor() + 0.5 - p) * _CELL for w, p in ((x, view.phase[0]), (y, view.phase[1]))
    )
    dots = (0.5 - (torch.hypot(x - middle_x, y - middle_y) - _DOT) * pixels).clamp(0, 1)
    dots = dots * (apart(middle_x, middle_y) > _DOT + _CLEAR)
    floor = ground + (dot - ground) * dots
    cover = (0.5 - apart(x, y) * pixels).clamp(0, 1)
    return floor + (paint - floor) * cover


def read_move(frames: Tensor, *, among: Sequence[str] = tuple(MOVES)) -> str:
    """Which single move the clip shows, with no model in it; `still` when the last frame is like the first.

    The first frame is seen as every move at several speeds would show it in the end; the nearest to the last frame
    wins.

    Args:
        frames: `(3, F, H, W)` in 0…1, `H = W`.
        among: moves to choose from.
    """
    frames = frames.float().cpu()
    count, side = frames.shape[1:3]
    errors: dict[str, float] = {}
    speeds = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
    for name, speed in (("still", 0.0), *product(among, speeds)):
        camera = Camera(((name, speed),) if speed else ())
        x, y = (u[-1] for u in _plane(camera, count, side))
        where = torch.stack([x, y], dim=-1)[None] * 2 - 1
        seen = F.grid_sample(frames[:, 0][None], where, align_corners=False, padding_mode="border")[0]
        inside = (where.abs() < 1).all(-1)[0]
        error = float((seen - frames[:, -1]).pow(2).mean(0)[inside].mean())
        errors[name] = min(error, errors.get(name, math.inf))
    return min(errors, key=lambda name: errors[name])
