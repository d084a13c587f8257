"""Options of both components. Help texts, forms and the JSON Schema are made of them: import nothing heavy here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from easyanimate_core.schema import Hint, Model

__all__ = ["LetterboxOptions", "PowerOptions"]


class LetterboxOptions(Model):
    """Bars above and below the picture."""

    bar: Annotated[float, Field(gt=0, le=0.45), Hint(flag="bar")] = 0.125
    """Height of each bar as a share of the frame's, above 0 to 0.45; rounded to the model's grid. Default: 0.125."""

    colour: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#000000"
    """Of the bars, as #rrggbb. Default: black."""


class PowerOptions(Model):
    """Spacing of the steps."""

    power: Annotated[float, Field(gt=0, le=8)] = 1.0
    """The level of noise after a share s of the steps is (1 − s) to this power, above 0 to 8: 1 is even, more dwells
    near the end. Default: 1."""
