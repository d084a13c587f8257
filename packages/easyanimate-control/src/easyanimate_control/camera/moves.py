"""Named camera moves and the small language that combines them: `pan-left + zoom-in*0.5, roll-cw`.

Nothing here imports numpy or torch: options are checked with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from easyanimate_core.validation import did_you_mean

__all__ = ["MOVES", "Move", "parse_moves"]


@dataclass(frozen=True, slots=True)
class Move:
    """What a camera does in one go, as change of the world-to-camera pose over the whole go.

    Axes are those of a picture: x to the right, y down, z away from the viewer. The world moves against the camera:
    a pan to the left is a world that shifts to the right.

    Attributes:
        shift: translation of the world as the camera sees it, in units of `path.SHIFT`.
        roll: turn of the world about the viewing axis, in units of `path.TURN`; above 0 the camera turns
            anticlockwise, so the picture turns clockwise.
    """

    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    roll: float = 0.0

    def __add__(self, other: Move) -> Move:
        """Both at once."""
        x, y, z = (a + b for a, b in zip(self.shift, other.shift, strict=True))
        return Move((x, y, z), self.roll + other.roll)

    def __mul__(self, factor: float) -> Move:
        """The same, faster or slower; below 0 the other way."""
        x, y, z = (a * factor for a in self.shift)
        return Move((x, y, z), self.roll * factor)


MOVES: Final[Mapping[str, Move]] = MappingProxyType(
    {
        "static": Move(),
        "pan-left": Move((1, 0, 0)),
        "pan-right": Move((-1, 0, 0)),
        "pan-up": Move((0, 1, 0)),
        "pan-down": Move((0, -1, 0)),
        "zoom-in": Move((0, 0, -2)),
        "zoom-out": Move((0, 0, 2)),
        "roll-ccw": Move(roll=1),
        "roll-cw": Move(roll=-1),
    }
)
"""The moves that released camera models are used with. "Pan" and "zoom" are the field's names for moves that are
really a truck and a dolly: the camera travels, its lens does not change."""

_ALIASES: Final[Mapping[str, str]] = MappingProxyType({"acw": "roll-ccw", "ccw": "roll-ccw", "cw": "roll-cw"})


def parse_moves(text: str) -> tuple[Move, ...]:
    """Read moves: `+` does two at once, `,` one after the other, `*2` twice as fast.

    Args:
        text: for example `"pan-left + zoom-in*0.5, roll-cw"`. Case does not matter, and a space in a name may stand
            for its hyphen: `"Pan Left"`.

    Returns:
        One move for each part between commas.

    Raises:
        ValueError: an unknown name, or a factor that is no finite number.
    """
    parts = []
    for part in text.split(","):
        move = Move()
        for term in part.split("+"):
            move = move + _parse_term(term)
        parts.append(move)
    return tuple(parts)


def _parse_term(term: str) -> Move:
    said, star, factor = term.partition("*")
    name = "-".join(said.casefold().replace("-", " ").replace("_", " ").split())
    name = _ALIASES.get(name, name)
    if name not in MOVES:
        if not name:
            raise ValueError("a move is missing: write it as 'pan-left + zoom-in'")
        known = did_you_mean(name, list(MOVES)) or f"Known: {', '.join(MOVES)}."
        raise ValueError(f"no move is called '{said.strip()}'. {known}")
    try:
        times = float(factor) if star else 1.0
    except ValueError:
        times = float("nan")
    if not abs(times) <= 1000:  # also NaN
        raise ValueError(f"'{factor.strip()}' is no factor for '{name}': write it as '{name}*0.5'")
    return MOVES[name] * times
