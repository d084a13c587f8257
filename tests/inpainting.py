"""What tests of conditioning share: a tiny model for images and videos, pictures, and requests that it runs quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from easyanimate_core.pipeline import Pipeline, load
from easyanimate_core.presets import Preset, find_preset
from easyanimate_core.request import Size
from easyanimate_core.testing import write_checkpoint
from recorder import SMALL

__all__ = ["SMALL", "clip", "inpainter", "painter", "picture", "said", "small", "written"]


def small(name: str) -> Preset:
    """A released model with the limits of a tiny one, and a size within them."""
    preset = find_preset(name)
    limits = preset.limits.model_copy(update={"size_min": 16, "size_max": 256, "frames_max": 17})
    defaults = preset.defaults.model_copy(update={"size": Size(height=128, width=224), "frames": 17})
    return preset.model_copy(update={"limits": limits, "defaults": defaults, "text_length": 32})


def inpainter(folder: Path) -> Pipeline:
    """The tiny model that takes given frames: 33 input channels."""
    return load(small("v5.1-7b-inp"), weights=written(folder, 33))


def painter(folder: Path) -> Pipeline:
    """The tiny text-to-video model."""
    return load(small("v5.1-7b"), weights=written(folder, 16))


def written(folder: Path, in_channels: int) -> Path:
    """The checkpoint in a folder, written when it is not there yet."""
    return folder if (folder / "vae").is_dir() else write_checkpoint(folder, in_channels=in_channels)


def picture(value: int = 0, *, height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """A picture `(H, W, 3)` with something to see in it; another one for every value."""
    return np.random.default_rng(value).integers(60, 200, (height, width, 3), dtype=np.uint8)


def clip(frames: int, *, height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """A video `(F, H, W, 3)`: `picture(0)`, `picture(1)`…"""
    return np.stack([picture(i, height=height, width=width) for i in range(frames)])


def said(name: str, **options: Any) -> dict[str, Any]:
    """A condition as a document writes it."""
    return {"name": name, **options}
