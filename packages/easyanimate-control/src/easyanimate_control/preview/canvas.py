"""A dark drawing board with smooth lines: everything is drawn twice as large and then reduced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["BACKGROUND", "DIM", "GRID", "INK", "TRACKS", "Board", "Colour", "blend", "ramp"]

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0…255."""

BACKGROUND: Final[Colour] = (16, 20, 26)
"""Behind everything."""

GRID: Final[Colour] = (44, 54, 66)
"""Floors and frames."""

DIM: Final[Colour] = (128, 142, 158)
"""Text and lines that stand back."""

INK: Final[Colour] = (232, 238, 245)
"""Text and lines that stand out."""

TRACKS: Final[tuple[Colour, ...]] = (
    (76, 201, 240),
    (255, 183, 3),
    (128, 237, 153),
    (247, 104, 161),
    (178, 151, 255),
    (255, 127, 80),
)
"""A colour for each of several things; beyond these they repeat."""

_START: Final[Colour] = (76, 201, 240)
_END: Final[Colour] = (247, 37, 133)
_FINE: Final = 2


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """A colour between two: the first at share 0, the second at 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def ramp(share: float) -> Colour:
    """The colour of a moment: from blue at the beginning (0) to pink at the end (1)."""
    return blend(_START, _END, share)


class Board:
    """A picture to draw on, in pixels of the finished one."""

    def __init__(self, height: int, width: int, colour: Colour = BACKGROUND) -> None:
        self.height, self.width = height, width
        self._picture = Image.new("RGB", (width * _FINE, height * _FINE), colour)
        self._draw = ImageDraw.Draw(self._picture)

    def line(self, points: Sequence[Sequence[float]], colour: Colour, width: float = 1.5) -> None:
        """A line through points x, y."""
        if len(points) > 1:
            self._draw.line(_scaled(points), fill=colour, width=max(1, round(width * _FINE)), joint="curve")

    def area(self, points: Sequence[Sequence[float]], colour: Colour, edge: Colour | None = None) -> None:
        """A filled polygon, with an edge if one is given."""
        if len(points) > 2:
            self._draw.polygon(_scaled(points), fill=colour)
            if edge is not None:
                self.line([*points, points[0]], edge, 1)

    def dot(self, point: Sequence[float], radius: float, colour: Colour, edge: Colour | None = None) -> None:
        """A filled circle."""
        x, y = (value * _FINE for value in point)
        reach = radius * _FINE
        self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour, outline=edge, width=_FINE)

    def text(
        self, point: Sequence[float], words: str, colour: Colour = DIM, size: float = 13, anchor: str = "la"
    ) -> None:
        """Words; the anchor is Pillow's, `la` being the upper left corner."""
        x, y = (value * _FINE for value in point)
        self._draw.text((x, y), words, fill=colour, font=_font(size * _FINE), anchor=anchor)

    def put(self, other: Board, left: int, top: int) -> None:
        """Another board on this one."""
        self._picture.paste(other._picture, (left * _FINE, top * _FINE))

    def put_picture(self, picture: NDArray[np.uint8], left: int, top: int, height: int, width: int) -> None:
        """A finished picture `(H, W, 3)`, stretched to a size."""
        fine = Image.fromarray(picture).resize((width * _FINE, height * _FINE), Image.Resampling.BICUBIC)
        self._picture.paste(fine, (left * _FINE, top * _FINE))

    def copy(self) -> Board:
        """The same board, to draw on separately."""
        board = Board(self.height, self.width)
        board.put(self, 0, 0)
        return board

    def finished(self) -> NDArray[np.uint8]:
        """The picture `(height, width, 3)`."""
        return np.asarray(self._picture.resize((self.width, self.height), Image.Resampling.LANCZOS), dtype=np.uint8)


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _scaled(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(float(x) * _FINE, float(y) * _FINE) for x, y in points]
