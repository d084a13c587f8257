"""Options of the sampler. They appear in help texts, forms and the JSON Schema, so only pydantic is imported."""

from __future__ import annotations

from pydantic import Field

from easyanimate_core.schema import Model

__all__ = ["PowerOptions"]


class PowerOptions(Model):
    """Spacing of the steps."""

    power: float = Field(default=1.0, gt=0.0, le=8.0)
    """Noise level after a share s of the steps is (1 − s) to this power: 1 is even, more dwells near the end."""
