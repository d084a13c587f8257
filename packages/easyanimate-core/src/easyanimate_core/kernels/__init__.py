"""Ops with a torch reference beside every fast path."""

from __future__ import annotations

__all__: list[str] = []
