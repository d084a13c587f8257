"""What this package adds to the SDK."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from easyanimate_core.plugins import hookimpl
from easyanimate_train.slots import DATASETS, GIVENS, LEARNABLES, OBJECTIVES, TRAIN_SLOTS

if TYPE_CHECKING:
    from easyanimate_core.registry import Registrar, Slot

__all__ = ["easyanimate_register", "easyanimate_slots"]


@hookimpl
def easyanimate_slots() -> Iterable[Slot[Any]]:
    """Open the slots of training."""
    return TRAIN_SLOTS


@hookimpl
def easyanimate_register(registrar: Registrar) -> None:
    """Register objectives, learnables, datasets and the command `train`."""
    for slot, name, target, options, summary in (
        (OBJECTIVES, "denoise", "objectives.denoise:Denoise", "objectives.options:DenoiseOptions", "flow matching"),
        (OBJECTIVES, "vae", "objectives.vae:Reconstruct", "objectives.options:VaeOptions", "reconstruct pixels"),
        (LEARNABLES, "full", "learnables.full:Full", "learnables.options:FullOptions", "whole modules"),
        (LEARNABLES, "modules", "learnables.full:Modules", "learnables.options:ModulesOptions", "parameters by name"),
        (DATASETS, "shapes", "data.shapes:Shapes", "data.options:ShapesOptions", "procedural world of moving shapes"),
        (
            GIVENS,
            "inpaint",
            "givens.inpaint:Inpaint",
            "givens.options:InpaintOptions",
            "pictures and parts of the clip",
        ),
        (
            GIVENS,
            "control-video",
            "givens.control:ControlVideo",
            "givens.options:ControlVideoOptions",
            "a control video",
        ),
        (GIVENS, "reference", "givens.control:Reference", "givens.options:ReferenceOptions", "the first frame"),
        (DATASETS, "views", "data.views:Views", "data.options:ViewsOptions", "shapes seen by a moving camera"),
        (DATASETS, "video", "data.video:Videos", "data.options:VideoOptions", "video and image files with captions"),
    ):
        registrar.add(
            slot, name, f"easyanimate_train.{target}", options=f"easyanimate_train.{options}", summary=summary
        )
    registrar.add("commands", "train", "easyanimate_train.cli:command", summary="train a model by a recipe")
    registrar.add("commands", "nano", "easyanimate_train.nano.cli:command", summary="make and measure the nano model")
