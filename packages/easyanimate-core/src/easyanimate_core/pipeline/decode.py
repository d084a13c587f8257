"""From latents to frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easyanimate_core.data import State, Video
from easyanimate_core.errors import InvalidPlan
from easyanimate_core.events import StageProgress
from easyanimate_core.interfaces import SmoothsSeams
from easyanimate_core.pipeline.settled import Settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from easyanimate_core.events import CancelToken, EventBus
    from easyanimate_core.interfaces import Toolbox, VideoVAE

__all__ = ["Decode", "decoded", "to_unit_range"]


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
        chunks = decoded(toolbox.vae, state.latents, state.geometry.frames, toolbox.events, toolbox.cancel)
        return state.with_(video=Video(torch.cat(list(chunks), dim=2), Settled.of(state.request).fps))


def decoded(vae: VideoVAE, latents: Tensor, total: int, events: EventBus, cancel: CancelToken) -> Iterator[Tensor]:
    """Runs of frames `(B, 3, F', H, W)` in 0…1 on the CPU, while they are decoded.

    Args:
        vae: decodes, on the device of its weights.
        latents: `(B, C, f, h, w)` there too.
        total: frames that there will be.
        events: hears of every run.
        cancel: checked after every run.
    """
    done = 0
    chunks = vae.decode_stream(latents)
    for chunk in vae.smoothed(chunks) if isinstance(vae, SmoothsSeams) else chunks:
        cancel.check()
        yield to_unit_range(chunk)
        done += chunk.shape[2]
        events.emit(StageProgress(Decode.name, done, total, "frames"))


def to_unit_range(pixels: Tensor) -> Tensor:
    """Pixels about −1…1 to 0…1, float32 on the CPU."""
    return (pixels.clamp(-1, 1) / 2 + 0.5).clamp(0, 1).float().cpu()
