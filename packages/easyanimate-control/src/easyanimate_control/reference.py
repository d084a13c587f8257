"""The conditioner `reference`: a picture that says what things look like, for models that are steered otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easyanimate_core.conditioning.pixels import fit_picture, read_picture
from easyanimate_core.data import Condition, Reference
from easyanimate_core.events import Notice

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_control.options import ReferenceOptions
    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox, VideoVAE
    from easyanimate_core.request import GenerationRequest

__all__ = ["INLET", "ReferenceImage", "encode_reference"]

INLET = "reference"
"""The inlet that the picture feeds."""


class ReferenceImage:
    """Feeds the inlet `reference`: the encoded picture in the first latent frame, zeros in all others.

    Without this condition the whole inlet is zeros, as in training.
    """

    def __init__(self, options: ReferenceOptions) -> None:
        self.options = options

    def inlets(self) -> tuple[str, ...]:
        """`reference`."""
        return (INLET,)

    def reference(self, request: GenerationRequest) -> Reference:
        """Size of the picture.

        Raises:
            UnreadableMedia: it cannot be read.
        """
        height, width = read_picture(self.options.image).shape[:2]
        return Reference(height, width)

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """The picture at the size of the result, encoded; nothing when a single picture is made.

        Released models were trained with an empty inlet for single pictures; a `Notice` says so.

        Raises:
            UnreadableMedia: the picture cannot be read.
        """
        geometry = state.geometry
        frames = toolbox.vae.compression.latent_frames(geometry.frames)
        if frames == 1:
            toolbox.events.emit(Notice("a single picture is made: the reference has no say in it"))
            return ()
        picture = fit_picture(read_picture(self.options.image), geometry.height, geometry.width)
        pixels = picture[None, :, None].to(device=toolbox.device, dtype=toolbox.dtype)
        return (Condition(INLET, encode_reference(pixels, toolbox.vae, frames)),)


def encode_reference(pixels: Tensor, vae: VideoVAE, frames: int) -> Tensor:
    """A picture to what the inlet `reference` is fed with.

    Args:
        pixels: `(B, 3, 1, H, W)` in 0…1, on the VAE's device.
        vae: that of the model.
        frames: latent frames of the video; with 1, everything is zeros.

    Returns:
        `(B, C, frames, h, w)`: the picture's scaled latents in frame 0, zeros elsewhere.
    """
    first = vae.encode_video(pixels * 2 - 1)
    if frames == 1:
        return torch.zeros_like(first)
    return torch.cat([first, first.new_zeros(*first.shape[:2], frames - 1, *first.shape[3:])], dim=2)
