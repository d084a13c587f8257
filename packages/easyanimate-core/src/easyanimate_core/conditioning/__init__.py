"""What steers a video besides words: given frames, and a video to start from. Options load without torch."""

from __future__ import annotations

__all__: list[str] = []
