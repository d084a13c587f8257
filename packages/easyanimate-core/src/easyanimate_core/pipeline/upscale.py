"""Larger frames for the eye, without new detail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidPlan
from easyanimate_core.pipeline.options import UpscaleOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["Upscale"]


class Upscale:
    """Repeats every pixel `scale` × `scale` times, which keeps the outlines of small videos crisp."""

    name = "upscale"
    needs = frozenset({"video"})
    gives = frozenset({"video"})
    uses: tuple[str, ...] = ()

    def __init__(self, options: UpscaleOptions | None = None) -> None:
        self.options = options or UpscaleOptions()

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """`video` with frames `(B, 3, F, scale·H, scale·W)`.

        Raises:
            InvalidPlan: there is no video.
        """
        if state.video is None:
            raise InvalidPlan("there is no video to enlarge", "Let the stage 'decode' run before.")
        return state.with_(video=replace(state.video, frames=self._enlarged(state.video.frames)))

    def stream(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Runs of frames `(B, 3, F', H, W)` to `(B, 3, F', scale·H, scale·W)`."""
        return map(self._enlarged, chunks)

    def _enlarged(self, frames: Tensor) -> Tensor:
        scale = self.options.scale
        return frames.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
