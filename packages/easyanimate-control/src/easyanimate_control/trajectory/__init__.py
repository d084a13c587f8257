"""Trajectories: points that move, drawn as a control video."""

from __future__ import annotations

__all__: list[str] = []
