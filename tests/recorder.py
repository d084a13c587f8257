"""What pipeline tests share: a small request, and a subscriber that remembers."""

from __future__ import annotations

from typing import Any

from easyanimate_core.events import Event, Notice, StageStarted

__all__ = ["PROMPT", "SMALL", "Recorder"]

PROMPT = "a red circle moving right on a blue background"

SMALL: dict[str, Any] = {"prompt": PROMPT, "size": (32, 48), "frames": 5, "steps": 2, "seed": 7}
"""A request that tiny models run in a moment."""


class Recorder(list[Event]):
    """Remembers every event; subscribes by being called."""

    __call__ = list.append

    @property
    def stages(self) -> list[str]:
        """Stages that began, in order."""
        return [event.stage for event in self if isinstance(event, StageStarted)]

    @property
    def notices(self) -> list[str]:
        """What the user was told."""
        return [event.message for event in self if isinstance(event, Notice)]
