"""Steps from noise to latents. Options load without torch; `catalog` and `process` need it."""

from __future__ import annotations

__all__: list[str] = []
