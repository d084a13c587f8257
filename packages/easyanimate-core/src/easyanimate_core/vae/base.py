"""What every video VAE owns: its latent-frame formula, and how a map comes to its latents' grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from easyanimate_core.data import Geometry

__all__ = ["CausalCompression", "resize_map"]


@dataclass(frozen=True, slots=True)
class CausalCompression:
    """The first frame stands alone, every further `temporal` frames share one latent frame.

    Attributes:
        channels: latent channels.
        spatial: pixels per latent pixel along each side.
        temporal: frames per latent frame after the first.
    """

    channels: int
    spatial: int = 8
    temporal: int = 4

    def round_frames(self, frames: int) -> int:
        """The largest `1 + temporal·k` that is not above `frames`; at least 1."""
        return 1 + max(frames - 1, 0) // self.temporal * self.temporal

    def latent_frames(self, frames: int) -> int:
        """`1 + (frames − 1) / temporal`, rounded down."""
        return 1 + max(frames - 1, 0) // self.temporal

    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int, int]:
        """`(B, C, f, h, w)` of the latents of a video of this size."""
        return (
            geometry.batch,
            self.channels,
            self.latent_frames(geometry.frames),
            geometry.height // self.spatial,
            geometry.width // self.spatial,
        )


def resize_map(pixels: Tensor, size: tuple[int, int, int], *, first_frame_alone: bool) -> Tensor:
    """A map `(B, C, F, H, W)` to a grid `(f, h, w)` by trilinear interpolation, without aligned corners.

    Along time this *samples* between frames and does not average over those of a group: of 48 frames that become 12,
    the 2nd and 3rd, 6th and 7th… count. A single known last frame therefore does not show in a mask. Released models
    were trained so.

    Args:
        pixels: the map.
        size: latent frames, height and width.
        first_frame_alone: the first frame becomes the first latent frame, the others share the rest.
    """
    frames, height, width = size
    if not first_frame_alone:
        return F.interpolate(pixels, size, mode="trilinear", align_corners=False)
    first = F.interpolate(pixels[:, :, :1], (1, height, width), mode="trilinear", align_corners=False)
    if frames == 1:
        return first
    others = F.interpolate(pixels[:, :, 1:], (frames - 1, height, width), mode="trilinear", align_corners=False)
    return torch.cat([first, others], dim=2)
