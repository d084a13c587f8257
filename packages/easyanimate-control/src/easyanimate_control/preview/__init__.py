"""Pictures that show what a control file says, before anybody waits for a video."""

from __future__ import annotations

__all__: list[str] = []
