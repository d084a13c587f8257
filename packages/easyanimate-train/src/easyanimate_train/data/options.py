"""Options of datasets. Pydantic only; no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from easyanimate_core.schema import Model

__all__ = ["ShapesOptions", "VideoOptions", "ViewsOptions"]


class ShapesOptions(Model):
    """The procedural world of moving shapes."""

    frames: int = Field(default=17, ge=1, le=257)
    """Frames per clip; 1 gives pictures."""

    side: int = Field(default=64, ge=16, le=512)
    """Height and width in pixels."""

    spread: float = Field(default=2 / 64, ge=0, le=0.5)
    """Largest distance of a path's middle from the frame's middle, as a share of the side."""

    only_colours: float = Field(default=0.0, ge=0, le=1)
    """Share of captions that say colours alone and leave shape, size and motion to a control video."""

    held_out: bool = False
    """Show the combinations that are kept from training instead of the others."""


class VideoOptions(Model):
    """Video and image files with captions, listed in a JSON file."""

    annotations: Path
    """A JSON list of objects with `file_path`, `text` and `type` (`video` or `image`, default `image`)."""

    root: Path = Path()
    """Folder that relative file paths start from; the annotation file's folder when left out."""

    height: int = Field(default=256, ge=16, multiple_of=16)
    """Height in pixels: clips are scaled to cover the size, then cropped at the centre."""

    width: int = Field(default=256, ge=16, multiple_of=16)
    """Width in pixels."""

    frames: int = Field(default=49, ge=1)
    """Frames per clip; pictures are repeated to fill them."""

    stride: int = Field(default=3, ge=1)
    """Distance of sampled frames in the source."""

    trim: tuple[float, float] = (0.1, 0.9)
    """Share of the source, from and to, that clips are taken from."""


class ViewsOptions(Model):
    """Shapes that stand still on a dotted ground, seen by a moving camera."""

    frames: int = Field(default=17, ge=1, le=257)
    """Frames per clip."""

    side: int = Field(default=64, ge=16, le=512)
    """Height and width in pixels."""

    spread: float = Field(default=4 / 64, ge=0, le=0.5)
    """Largest distance of the shape from the first frame's middle, as a share of the side."""

    held_out: bool = False
    """Show the combinations that are kept from training instead of the others."""
