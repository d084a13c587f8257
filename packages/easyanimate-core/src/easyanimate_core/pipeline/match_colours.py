"""Keep the first frame's colours through the clip."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidPlan
from easyanimate_core.media.colour import match_first_frame

if TYPE_CHECKING:
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
