"""The slot that this package opens. Nothing here imports torch at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from easyanimate_core.registry import Slot

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PREPROCESSORS", "Preprocessor"]


class Preprocessor(Protocol):
    """Turns a video into what a control model was trained to follow: edges, depth, poses, lines."""

    def __call__(self, frames: Tensor) -> Tensor:
        """`(F, 3, H, W)` float32 in 0…1 on the CPU to a control video of the same shape and range.

        A long video comes in parts, its frames in order: one that looks at neighbours remembers them itself.
        """
        ...


PREPROCESSORS: Final[Slot[Preprocessor]] = Slot("preprocessors", "turn a video into a control video")
"""Edges, depth, poses, lines: videos to control videos, frame by frame or with a look at their neighbours."""
