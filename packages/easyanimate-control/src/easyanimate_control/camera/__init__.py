"""Camera paths: named moves and files, to the rays that camera models were trained with."""

from __future__ import annotations

__all__: list[str] = []
