"""Options of learnables. Pydantic only; no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from easyanimate_core.schema import Model

__all__ = ["FullOptions", "ModulesOptions"]


class FullOptions(Model):
    """Every parameter of whole modules."""

    roles: tuple[Literal["denoiser", "vae", "text"], ...] = Field(default=("denoiser",), min_length=1)
    """Modules that are trained."""


class ModulesOptions(Model):
    """Parameters whose name contains one of some strings."""

    names: tuple[str, ...] = Field(min_length=1)
    """Parts of `role.name`, for example `vae.decoder.` or `denoiser.proj`."""
