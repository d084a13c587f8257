"""Options of stages. Pydantic only; no torch."""

from __future__ import annotations

from pydantic import Field

from easyanimate_core.schema import Model

__all__ = ["UpscaleOptions"]


class UpscaleOptions(Model):
    """Enlarge finished frames."""

    scale: int = Field(default=1, ge=1, le=16)
    """How many times wider and taller, by repeating pixels."""
