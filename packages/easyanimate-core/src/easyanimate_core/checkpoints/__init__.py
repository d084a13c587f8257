"""From files to modules and back: source → header → keymap → strict load."""

from __future__ import annotations

__all__: list[str] = []
