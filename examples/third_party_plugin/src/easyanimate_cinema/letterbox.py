"""Bars that the diffusion loop keeps, so that the model composes its picture between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easyanimate_core.data import Origin

if TYPE_CHECKING:
    from easyanimate_cinema.options import LetterboxOptions
    from easyanimate_core.data import Condition, State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["Letterbox"]


class Letterbox:
    """Signs `Conditioner` and `GivesOrigin` of `easyanimate_core.interfaces` by having their members."""

    def __init__(self, options: LetterboxOptions) -> None:
        self.options = options

    def inlets(self) -> tuple[str, ...]:
        """None: every model can keep parts of a video."""
        return ()

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """No conditions: the bars are where sampling starts from, and what it keeps."""
        return ()

    def origin(self, state: State, toolbox: Toolbox) -> Origin:
        """A clip of the bars' colour, of which everything between the bars is drawn anew, from pure noise."""
        geometry = state.geometry
        colour = torch.tensor(list(bytes.fromhex(self.options.colour[1:]))) / 255 * 2 - 1
        pixels = colour.reshape(1, 3, 1, 1, 1).expand(1, 3, geometry.frames, geometry.height, geometry.width)
        latents = toolbox.vae.encode_video(pixels.to(device=toolbox.device, dtype=toolbox.dtype))
        redraw = torch.ones_like(latents[:, :1])
        # At least one row of latents, and never the whole picture.
        rows = min(max(round(self.options.bar * latents.shape[-2]), 1), (latents.shape[-2] - 1) // 2)
        redraw[..., :rows, :] = 0
        redraw[..., latents.shape[-2] - rows :, :] = 0
        return Origin(latents, strength=1.0, redraw=redraw)
