"""Backends of the `attention` slot."""

from __future__ import annotations

__all__: list[str] = []
