"""Options of step caches. Pydantic only; no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from easyanimate_core.schema import Hint, Model

__all__ = ["CfgGateOptions", "EasyCacheOptions", "FirstBlockOptions", "TeaCacheOptions"]


class TeaCacheOptions(Model):
    """Skip the blocks while their input has changed little."""

    threshold: Annotated[float, Field(ge=0, le=10)] = 0.08
    """Accumulated change, relative, from which the blocks run again, 0…10; the original advises 0.05…0.1. 0 skips
    nothing."""

    coefficients: Annotated[tuple[float, ...], Field(min_length=1, max_length=9), Hint(advanced=True)] | None = None
    """Polynomial from the input's change to the output's, highest power first. Default: the model's preset."""

    every: Annotated[int, Field(ge=1, le=64), Hint(advanced=True)] = 1
    """Look at every n-th token only, 1…64: less memory, nearly the same decisions. 1 is as in the original."""


class FirstBlockOptions(Model):
    """Run the first block always, and the others when what it adds has changed."""

    threshold: Annotated[float, Field(ge=0, le=10)] = 0.08
    """Relative change from which the other blocks run again, 0…10. 0 skips nothing."""


class EasyCacheOptions(Model):
    """Skip whole steps while input and output change at a steady rate."""

    threshold: Annotated[float, Field(ge=0, le=10)] = 0.05
    """Accumulated change of the output, relative, from which the network runs again, 0…10. 0 skips nothing."""

    warmup: Annotated[int, Field(ge=2, le=100), Hint(unit="steps")] = 5
    """Steps at the beginning that always run, 2…100."""


class CfgGateOptions(Model):
    """Compute the unguided half only in the first part of a run, and reuse the difference that it makes."""

    after: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of the run after which the unguided half is not computed any more, 0…1; at least two steps compute it. 1
    skips nothing."""

    refresh: Annotated[int, Field(ge=0, le=100), Hint(unit="steps")] = 0
    """Compute it again after this many steps, 0…100. 0: never."""
