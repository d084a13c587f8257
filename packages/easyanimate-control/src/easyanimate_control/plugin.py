"""What this package tells the plugin host: it opens one slot and registers nothing yet."""

from __future__ import annotations

from typing import Any

from easyanimate_control.slots import PREPROCESSORS
from easyanimate_core.plugins import hookimpl
from easyanimate_core.registry import Slot

__all__ = ["easyanimate_slots"]


@hookimpl
def easyanimate_slots() -> tuple[Slot[Any], ...]:
    """Open `preprocessors`."""
    return (PREPROCESSORS,)
