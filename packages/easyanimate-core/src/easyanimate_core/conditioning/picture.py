"""A picture that the model is shown as a whole, through an image encoder: the inlet `image_tokens`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from easyanimate_core.conditioning.pixels import read_picture, unit_picture
from easyanimate_core.data import Condition
from easyanimate_core.errors import IncompatibleConditions
from easyanimate_core.interfaces import SeesPicture

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.conditioning.options import ClipImageOptions
    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["INLET", "ClipImage", "picture_condition", "sees_pictures"]

INLET: Final = "image_tokens"
"""The inlet that a picture's tokens feed."""

_ACTIVE: Final = (0.6, 1.0)
"""Released models were sampled so: a picture is shown in the last 40 % of the steps, where its details are made."""


class ClipImage:
    """Feeds the inlet `image_tokens`."""

    def __init__(self, options: ClipImageOptions) -> None:
        self.options = options

    def inlets(self) -> tuple[str, ...]:
        """`image_tokens`."""
        return (INLET,)

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """The picture's tokens, for one sample.

        Raises:
            UnreadableMedia: the picture cannot be read.
            IncompatibleConditions: the model has no image encoder.
        """
        return (picture_condition(unit_picture(read_picture(self.options.image)), toolbox),)


def sees_pictures(toolbox: Toolbox) -> bool:
    """Whether the model has an image encoder, and its denoiser an inlet for what it says."""
    return toolbox.image_encoder is not None and INLET in {inlet.name for inlet in toolbox.denoiser.inlets}


def picture_condition(pixels: Tensor, toolbox: Toolbox) -> Condition:
    """A picture `(3, H, W)` in 0…1 as tokens `(1, n, D)`; the unguided half sees zeros, which is no picture.

    Raises:
        IncompatibleConditions: the model has no image encoder, or its denoiser cannot say what it takes.
    """
    encoder, denoiser = toolbox.image_encoder, toolbox.denoiser
    if encoder is None or not isinstance(denoiser, SeesPicture):
        lacking = "image encoder" if encoder is None else "denoiser that attends to pictures"
        raise IncompatibleConditions(
            f"this model has no {lacking}", "Pick a model with the inlet 'image_tokens': easyanimate presets list."
        )
    embedding = encoder.encode_image(pixels[None])
    tokens = embedding.tokens if denoiser.picture == "tokens" else embedding.pooled[:, None]
    tokens = tokens.to(device=toolbox.device, dtype=toolbox.dtype)
    return Condition(INLET, tokens, unconditional=torch.zeros_like(tokens), active=_ACTIVE)
