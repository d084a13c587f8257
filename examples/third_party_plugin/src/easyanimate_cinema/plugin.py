"""What this package tells EasyAnimate. Strings only: listing plugins must load nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_core.plugins import hookimpl

if TYPE_CHECKING:
    from easyanimate_core.registry import Registrar

__all__ = ["easyanimate_register"]


@hookimpl
def easyanimate_register(registrar: Registrar) -> None:
    """Register the conditioner and the sampler."""
    registrar.add(
        "conditioners",
        "letterbox",
        "easyanimate_cinema.letterbox:Letterbox",
        options="easyanimate_cinema.options:LetterboxOptions",
        summary="bars above and below, and a picture that is made to fit between them",
    )
    registrar.add(
        "samplers",
        "power",
        "easyanimate_cinema.power:Power",
        options="easyanimate_cinema.options:PowerOptions",
        summary="flow-matching Euler, steps spaced by a power",
        tags=["generation:v5.1"],
    )
