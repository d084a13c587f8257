"""What the other EasyAnimate distributions provide. Data for hints; core imports none of them."""

from __future__ import annotations

from typing import Final

__all__ = ["SIBLINGS"]

_PROVIDES: Final = {
    "easyanimate-control": {
        "commands": ("control",),
        "conditioners": ("camera", "control-video", "reference", "trajectory"),
        "preprocessors": ("", "canny", "depth", "lines", "mlsd", "pose"),
    },
    "easyanimate-train": {
        "commands": ("prepare", "train"),
        "datasets": ("", "shapes", "video", "views"),
        "givens": ("", "control-video", "inpaint", "reference"),
        "learnables": ("", "full", "lora", "modules"),
        "objectives": ("", "consistency", "denoise", "reward", "vae"),
        "preparers": ("",),
        "rewards": ("",),
    },
    "easyanimate-ui": {
        "commands": ("serve", "ui"),
        "panels": ("",),
    },
}

SIBLINGS: Final[tuple[tuple[str, str, str], ...]] = tuple(
    (slot, name, distribution)
    for distribution, slots in _PROVIDES.items()
    for slot, names in slots.items()
    for name in names
)
"""`(slot, name, distribution)`; an empty name says which distribution opens the slot."""
