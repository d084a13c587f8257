"""What this package tells EasyAnimate. Strings only: listing plugins must load nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_core.plugins import hookimpl

if TYPE_CHECKING:
    from easyanimate_core.registry import Registrar

__all__ = ["easyanimate_register"]


@hookimpl
def easyanimate_register(registrar: Registrar) -> None:
    """Register the sampler."""
    registrar.add(
        "samplers",
        "power",
        "easyanimate_power.sampler:Power",
        options="easyanimate_power.options:PowerOptions",
        summary="flow-matching Euler, steps spaced by a power",
        tags=["generation:v5.1"],
    )
