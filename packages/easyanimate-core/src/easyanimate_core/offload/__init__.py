"""Where weights are while they are not used (`resident`), and in which type they are kept (`storage`)."""

from __future__ import annotations

__all__: list[str] = []
