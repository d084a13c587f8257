"""A contract for every slot: classes of tests that a plugin's author inherits from."""

from __future__ import annotations

__all__: list[str] = []
