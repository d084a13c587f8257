"""A small room to try cameras in: a floor with a grid and three boxes, seen by a pinhole camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from easyanimate_control.preview.canvas import BACKGROUND, GRID, Board, Colour, blend

__all__ = ["Eye", "draw_room", "look_at"]

_Points = NDArray[np.float64]

_NEAR: Final = 0.05
_FLOOR: Final = 1.0  # y is down
_SKY: Final[Colour] = (25, 33, 44)
_GROUND: Final[Colour] = (20, 25, 32)
_LIGHT: Final = np.array([0.35, -0.8, -0.5])
_FADE: Final = 26.0

# Middle of the base on the floor, half the width, height, colour.
_BOXES: Final = (
    ((-1.7, 4.6), 0.45, 1.5, (76, 201, 240)),
    ((0.35, 6.4), 0.6, 2.1, (255, 183, 3)),
    ((2.0, 4.0), 0.4, 0.9, (247, 104, 161)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Eye:
    """A pinhole camera over a panel.

    Attributes:
        pose: `(3, 4)` world to camera.
        focal: focal lengths in pixels, x and y.
        middle: where the viewing axis meets the panel, x and y in pixels.
    """

    pose: _Points
    focal: tuple[float, float]
    middle: tuple[float, float]

    def seen(self, points: _Points) -> _Points:
        """World points `(N, 3)` in the camera's axes."""
        seen: _Points = points @ self.pose[:, :3].T + self.pose[:, 3]
        return seen

    def project(self, seen: _Points) -> _Points:
        """_Points in front of the camera, `(N, 3)` in its axes, to the panel `(N, 2)`."""
        placed: _Points = seen[:, :2] / seen[:, 2:] * np.array(self.focal) + np.array(self.middle)
        return placed

    def area(self, corners: _Points) -> _Points:
        """A world polygon `(N, 3)` on the panel; what is behind the camera is cut off, perhaps everything."""
        return self._cut(self.seen(corners), closed=True)

    def line(self, points: _Points) -> _Points:
        """A world segment `(2, 3)` on the panel, cut as `area` is."""
        return self._cut(self.seen(points), closed=False)

    def _cut(self, seen: _Points, *, closed: bool) -> _Points:
        kept = []
        following = [*seen[1:], seen[0]] if closed else [*seen[1:], None]
        for here, there in zip(seen, following, strict=True):
            if here[2] >= _NEAR:
                kept.append(here)
            if there is not None and (here[2] >= _NEAR) != (there[2] >= _NEAR):
                kept.append(here + (there - here) * (_NEAR - here[2]) / (there[2] - here[2]))
        return self.project(np.array(kept)) if kept else np.empty((0, 2))


def look_at(place: _Points, target: _Points) -> _Points:
    """World to camera `(3, 4)` of a camera at a place that looks at a target, its y axis down."""
    forward = (target - place) / np.linalg.norm(target - place)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(forward, right), forward])
    return np.concatenate([turn, -(turn @ place)[:, None]], axis=1)


def draw_room(board: Board, eye: Eye, *, sky: bool = True) -> None:
    """The room as an eye sees it: sky and ground, a grid on the floor, boxes from far to near."""
    if sky:
        board.area([(0, 0), (board.width, 0), (board.width, board.height), (0, board.height)], _SKY)
    far = np.array([[-60, _FLOOR, -60], [60, _FLOOR, -60], [60, _FLOOR, 60], [-60, _FLOOR, 60]])
    if sky:
        board.area(eye.area(far).tolist(), _GROUND)
    _draw_grid(board, eye, _GROUND if sky else BACKGROUND)
    for face, colour in sorted(_faces(), key=lambda found: -_distance(eye, found[0])):
        corners = eye.area(face)
        if len(corners) > 2 and _turned_to(eye, face):
            board.area(corners.tolist(), colour, blend(colour, (255, 255, 255), 0.35))


@cache
def _grid() -> _Points:
    """Lines on the floor, `(N, 2, 3)`, in pieces that fade one by one."""
    pieces = []
    for step in range(-12, 13):
        for start, end in (((step, -8), (step, 16)), ((-12, step + 4), (12, step + 4))):
            (x, z), (x_end, z_end) = start, end
            cuts = np.linspace((x, _FLOOR, z), (x_end, _FLOOR, z_end), 9)
            pieces += [cuts[i : i + 2] for i in range(8)]
    return np.stack(pieces)


def _draw_grid(board: Board, eye: Eye, ground: Colour) -> None:
    pieces = _grid()
    depths = eye.seen(pieces.mean(axis=1))[:, 2]
    for piece, depth in zip(pieces, depths, strict=True):
        if -2 < depth < _FADE:
            board.line(eye.line(piece).tolist(), blend(GRID, ground, max(float(depth), 0) / _FADE), 1)


def _distance(eye: Eye, face: _Points) -> float:
    return float(np.linalg.norm(eye.seen(face).mean(axis=0)))


def _turned_to(eye: Eye, face: _Points) -> bool:
    seen = eye.seen(face)
    return float(np.cross(seen[1] - seen[0], seen[2] - seen[0]) @ seen[0]) > 0


def _faces() -> Iterator[tuple[_Points, Colour]]:
    """Faces `(4, 3)` of all boxes, clockwise from outside, in the colour that light gives them."""
    for (x, z), half, height, colour in _BOXES:
        low, high = np.array([x - half, _FLOOR - height, z - half]), np.array([x + half, _FLOOR, z + half])
        for axis in range(3):
            for side, end in ((-1, low), (1, high)):
                one, two = [other for other in range(3) if other != axis]
                face = np.tile(end, (4, 1))
                face[:, axis] = end[axis]
                face[:, one] = [low[one], high[one], high[one], low[one]]
                face[:, two] = [low[two], low[two], high[two], high[two]]
                normal = np.zeros(3)
                normal[axis] = side
                # Clockwise from outside: the cross product of the first two edges points inwards.
                inwards = np.cross(face[1] - face[0], face[2] - face[0]) @ normal < 0
                light = 0.45 + 0.55 * max(float(normal @ _LIGHT) / float(np.linalg.norm(_LIGHT)), 0)
                yield (face if inwards else face[::-1]), blend((0, 0, 0), colour, light)
