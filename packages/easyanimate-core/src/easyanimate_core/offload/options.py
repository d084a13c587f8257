"""Options of offload strategies. Pydantic only; no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from easyanimate_core.schema import Hint, Model
from easyanimate_core.sizes import Bytes

__all__ = ["GroupOptions", "SequentialOptions", "StreamOptions"]


class GroupOptions(Model):
    """Bring a few blocks at a time."""

    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """Blocks that come and go together, 1…64."""


class SequentialOptions(Model):
    """Bring layer by layer."""

    whole: tuple[str, ...] = ()
    """Components that come as a whole instead: roles (`text`, `denoiser`, `vae`) or class names."""


class StreamOptions(Model):
    """Bring every block while the one before it runs."""

    budget: Annotated[Bytes, Field(gt=0)] | None = None
    """Bytes of weights that may lie on the device, as `8GiB`; what the ring leaves of it is filled with blocks that
    stay. Default: the ring alone."""

    slots: Annotated[int, Field(ge=2, le=8), Hint(advanced=True)] = 2
    """Blocks in the ring, 2…8."""

    source: Literal["ram", "disk"] = "ram"
    """Where blocks wait: in main memory, pinned for a GPU, or in a file that is read again at every pass."""

    folder: Annotated[str | None, Hint(media="file", advanced=True)] = None
    """Folder of that file; it is removed afterwards. Default: the system's folder for temporary files."""
