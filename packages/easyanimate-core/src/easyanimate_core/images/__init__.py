"""Pictures to tokens, by encoders of transformers."""

from __future__ import annotations

__all__: list[str] = []
