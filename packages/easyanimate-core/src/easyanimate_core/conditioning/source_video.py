"""The conditioner `source-video`: sampling starts from a video instead of noise alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from easyanimate_core.conditioning.footage import footage_of, reference_of
from easyanimate_core.conditioning.inpaint import INLETS, inpaint_conditions
from easyanimate_core.data import Origin

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.conditioning.options import SourceVideoOptions
    from easyanimate_core.data import Condition, Reference, State
    from easyanimate_core.interfaces import Denoiser, Toolbox
    from easyanimate_core.request import GenerationRequest

__all__ = ["SourceVideo"]


class SourceVideo:
    """Gives the run its origin, and, to a model that has them, feeds the inlets `mask` and `masked_video`.

    With a mask, a model without these inlets keeps the unmasked parts by blending them in at every step.
    """

    def __init__(self, options: SourceVideoOptions) -> None:
        self.options = options

    def inlets(self) -> tuple[str, ...]:
        """`mask` and `masked_video`, where the model has them."""
        return INLETS

    def reference(self, request: GenerationRequest) -> Reference:
        """Size of the video, and its length at the request's frame rate.

        Raises:
            UnreadableMedia: the video or the mask cannot be read.
            InvalidRequest: the mask has another size than the video.
        """
        return reference_of(self.options.video, self.options.mask, request)

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """The conditions of a masked video; none without a mask, or where the model has no inlets for it.

        Raises:
            UnreadableMedia: the video or the mask cannot be read.
            InvalidRequest: the mask is too short.
        """
        if not _has_inlets(toolbox.denoiser):
            return ()
        known = footage_of(self.options.video, self.options.mask, state)
        return inpaint_conditions(known, state, toolbox, noise=self.options.noise)

    def origin(self, state: State, toolbox: Toolbox) -> Origin | None:
        """The encoded video and the strength; at strength 1 the video has no say, and is not encoded.

        Raises:
            UnreadableMedia: the video or the mask cannot be read.
            InvalidRequest: the mask is too short.
        """
        options = self.options
        blended = options.mask is not None and not _has_inlets(toolbox.denoiser)
        if options.strength == 1 and not blended:
            return None
        known = footage_of(options.video, options.mask, state)
        pixels = (known.pixels * 2 - 1).to(device=toolbox.device, dtype=toolbox.dtype)
        latents = toolbox.vae.encode_video(pixels)
        return Origin(latents, options.strength, _redraw(known.hidden, latents) if blended else None)


def _has_inlets(denoiser: Denoiser) -> bool:
    return {inlet.name for inlet in denoiser.inlets} >= set(INLETS)


def _redraw(hidden: Tensor, latents: Tensor) -> Tensor:
    """The mask on the latents' grid, corners aligned, as the original blends."""
    frames, height, width = latents.shape[2:]
    resized = F.interpolate(hidden, (frames, height, width), mode="trilinear", align_corners=True)
    return resized.to(latents)
