"""The conditioner `control-video`: a video that says where edges, depths, bodies or lines are, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_control.overlay import overlay
from easyanimate_core.conditioning.footage import footage_of, reference_of
from easyanimate_core.data import Condition, Reference

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_control.options import ControlVideoOptions
    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox, VideoVAE
    from easyanimate_core.request import GenerationRequest

__all__ = ["INLET", "ControlVideo", "control_condition", "encode_control"]

INLET = "control"
"""The inlet that control videos feed, drawn ones (`trajectory`) too."""


class ControlVideo:
    """Feeds the inlet `control`. Models that have it were trained on canny, depth, pose, MLSD, HED and scribble videos;
    which kind it is, they see for themselves."""

    def __init__(self, options: ControlVideoOptions) -> None:
        self.options = options

    def inlets(self) -> tuple[str, ...]:
        """`control`."""
        return (INLET,)

    def reference(self, request: GenerationRequest) -> Reference:
        """Size of the video, and its length at the request's frame rate; of two videos, the shorter length.

        Raises:
            UnreadableMedia: a video cannot be read.
        """
        first = reference_of(self.options.video, None, request)
        if self.options.overlay is None:
            return first
        second = reference_of(self.options.overlay, None, request)
        lengths = [found.frames for found in (first, second) if found.frames is not None]
        return Reference(first.height, first.width, min(lengths), first.notice or second.notice)

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """The encoded video, one for the whole batch.

        Raises:
            UnreadableMedia: a video cannot be read, or is shorter than the result.
        """
        pixels = footage_of(self.options.video, None, state).pixels
        if self.options.overlay is not None:
            pixels = overlay(pixels, footage_of(self.options.overlay, None, state).pixels)
        return (control_condition(pixels, toolbox),)


def control_condition(pixels: Tensor, toolbox: Toolbox) -> Condition:
    """A control video `(1 or B, 3, F, H, W)` in 0…1 for the inlet `control`."""
    return Condition(INLET, encode_control(pixels.to(device=toolbox.device, dtype=toolbox.dtype), toolbox.vae))


def encode_control(pixels: Tensor, vae: VideoVAE) -> Tensor:
    """A control video to what the inlet `control` is fed with: its latents, without noise.

    Args:
        pixels: `(B, 3, F, H, W)` in 0…1, `F` a length that the VAE can encode, on its device.
        vae: that of the model.

    Returns:
        `(B, C, f, h, w)`, scaled latents.
    """
    return vae.encode_video(pixels * 2 - 1)
