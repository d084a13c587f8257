"""Options of givens. Pydantic only; no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from easyanimate_core.schema import Model

__all__ = ["ControlVideoOptions", "InpaintOptions", "ReferenceOptions"]


class InpaintOptions(Model):
    """Pictures and parts of the clip that are known: ten kinds of random mask."""

    kind: (
        Literal[
            "box",
            "all",
            "after_start",
            "between",
            "box_in_time",
            "pixels",
            "small_boxes",
            "ellipse",
            "circle",
            "frames",
        ]
        | None
    ) = None
    """One kind of mask for all clips; drawn by its released share when left out."""

    empty: float = Field(default=0.9, ge=0, le=1)
    """Share of wholly hidden clips whose inlets are empty, as they are when text alone is given."""

    noise: bool = False
    """Put noise on known pixels, of a deviation whose logarithm is normal (−3, 0.5). Must agree with the denoiser's
    `add_noise_in_inpaint_model`."""


class ControlVideoOptions(Model):
    """A control video of the same length, from the dataset's signal `control`."""

    empty: float = Field(default=0.2, ge=0, le=1)
    """Share of clips without one."""


class ReferenceOptions(Model):
    """The clip's first frame as a picture of what it shows."""

    empty: float = Field(default=0.2, ge=0, le=1)
    """Share of clips without one."""
