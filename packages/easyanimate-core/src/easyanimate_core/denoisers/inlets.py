"""Channel inlets of a denoiser: what its input channels after the latents are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import Inlet

__all__ = ["check_channels", "joined"]


def check_channels(inlets: Sequence[Inlet], in_channels: int, latent_channels: int) -> None:
    """Show that declared channel inlets fill a checkpoint's input beside the latents.

    Raises:
        CheckpointMismatch: their widths do not add up.
    """
    wanted = in_channels - latent_channels
    width = sum(inlet.width for inlet in inlets if inlet.kind == "channels")
    if width != wanted:
        raise CheckpointMismatch(
            f"this checkpoint has {in_channels} input channels, so its inlets need "
            f"{wanted} channels; the preset declares {width}",
            "Choose the preset that belongs to the checkpoint (easyanimate presets list).",
        )


def joined(latents: Tensor, channels: Iterable[Tensor], in_channels: int) -> Tensor:
    """Latents `(B, C, f, h, w)` and the values of channel inlets, in inlet order, as `(B, in_channels, f, h, w)`.

    Raises:
        IncompatibleConditions: an inlet is missing, or has another width.
    """
    x = torch.cat([latents, *channels], dim=1)
    if x.shape[1] != in_channels:
        raise IncompatibleConditions(
            f"the denoiser got {x.shape[1]} channels and expects {in_channels}",
            "Every channel inlet must be wired; see data.wire.",
        )
    return x
