"""How much of a schedule runs when there is something to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["first_step", "given"]


def first_step(steps: int, strength: float) -> int:
    """Steps to skip so that the last `int(steps·strength)` are taken.

    Args:
        steps: at least 1.
        strength: 0 (skip all) … 1 (skip none).

    Raises:
        InvalidRequest: an argument is out of range.
    """
    if steps < 1:
        raise InvalidRequest(f"steps is '{steps}'", "Take at least 1 step.")
    if not 0.0 <= strength <= 1.0:
        raise InvalidRequest(f"strength is '{strength}'", "It goes from 0 (unchanged) to 1 (all new).")
    return steps - min(int(steps * strength), steps)


def given(clean: Tensor | None) -> Tensor:
    """The clean latents that a part of a schedule starts from.

    Raises:
        InvalidRequest: there are none.
    """
    if clean is None:
        raise InvalidRequest("strength is below 1, and there is no video to start from", "Give a source video.")
    return clean
