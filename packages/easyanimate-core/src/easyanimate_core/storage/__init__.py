"""In which type weights are kept: as they compute (`native`), or in one byte each (`float8`, `int8`)."""

from __future__ import annotations

__all__: list[str] = []
