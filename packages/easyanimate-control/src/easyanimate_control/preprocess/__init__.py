"""Videos to control videos: the components of the slot `preprocessors`, and what runs them over files."""

from __future__ import annotations

__all__: list[str] = []
