"""Weights as they compute."""

from __future__ import annotations

from typing import Any

__all__ = ["Auto", "Native"]


class Native:
    """Keeps weights in the dtype that they compute in."""

    def store(self, role: str, module: Any) -> None:
        """Nothing to do; see `placing.Storage`."""


class Auto(Native):
    """What the planner decides; native where nobody asked it."""
