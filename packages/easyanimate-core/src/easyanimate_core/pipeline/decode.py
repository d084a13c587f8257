"""From latents to frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easyanimate_core.data import State, Video
from easyanimate_core.errors import InvalidPlan
from easyanimate_core.events import StageProgress
from easyanimate_core.pipeline.settled import Settled

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import Toolbox

__all__ = ["Decode", "to_unit_range"]


class Decode:
    """Decodes chunk by chunk along time; finished frames leave the device at once."""

    name = "decode"
    needs = frozenset({"latents"})
    gives = frozenset({"video"})
    uses: tuple[str, ...] = ("vae",)

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """Fills `video`.

        Raises:
            InvalidPlan: there are no latents.
            Cancelled: someone asked to stop; checked after every chunk.
        """
        if state.latents is None:
            raise InvalidPlan("there are no latents to decode", "Let the stages 'noise' and 'denoise' run before.")
        chunks, done = [], 0
        for chunk in toolbox.vae.decode_stream(state.latents):
            toolbox.cancel.check()
            chunks.append(to_unit_range(chunk))
            done += chunk.shape[2]
            toolbox.events.emit(StageProgress(self.name, done, state.geometry.frames, "frames"))
        return state.with_(video=Video(torch.cat(chunks, dim=2), Settled.of(state.request).fps))


def to_unit_range(pixels: Tensor) -> Tensor:
    """Pixels about −1…1 to 0…1, float32 on the CPU."""
    return (pixels.clamp(-1, 1) / 2 + 0.5).clamp(0, 1).float().cpu()
