"""The slot that this package opens."""

from __future__ import annotations

from typing import Any, Final

from easyanimate_core.registry import Slot

__all__ = ["PANELS"]

PANELS: Final[Slot[Any]] = Slot("panels", "add a page to the web UI")
"""Pages of the web UI. What a panel must be able to do is settled together with the UI itself."""
