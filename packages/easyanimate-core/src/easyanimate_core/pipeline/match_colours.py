"""Keep the first frame's colours through the clip."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from easyanimate_core.errors import InvalidPlan
from easyanimate_core.media.colour import match_first_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["MatchColours"]


class MatchColours:
    """Moves every frame's colour statistics to those of the first frame."""

    name = "match_colours"
    needs = frozenset({"video"})
    gives = frozenset({"video"})
    uses: tuple[str, ...] = ()

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """`video` with frames of the same shape.

        Raises:
            InvalidPlan: there is no video.
        """
        if state.video is None:
            raise InvalidPlan("there is no video to match colours in", "Let the stage 'decode' run before.")
        return state.with_(video=replace(state.video, frames=match_first_frame(state.video.frames)))

    def stream(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Runs of frames `(B, 3, F', H, W)` in 0…1 to runs of the same shape."""
        first: Tensor | None = None
        for chunk in chunks:
            if first is None:
                first = chunk[:, :, :1]
                yield match_first_frame(chunk)
            else:
                yield match_first_frame(torch.cat([first, chunk], dim=2))[:, :, 1:]
