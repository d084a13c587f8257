"""What every video VAE owns: its latent-frame formula, its posterior, and how a map comes to its latents' grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from easyanimate_core.data import Geometry

__all__ = ["CausalCompression", "FrameCompression", "RunCompression", "draw", "resize_map"]


@dataclass(frozen=True, slots=True)
class FrameCompression:
    """Every frame is a picture of its own: as many latent frames as frames.

    Attributes:
        channels: latent channels.
        spatial: pixels per latent pixel along each side.
    """

    channels: int
    spatial: int = 8

    def round_frames(self, frames: int) -> int:
        """Any count is exact; at least 1."""
        return max(frames, 1)

    def latent_frames(self, frames: int) -> int:
        """As many as frames."""
        return max(frames, 1)

    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int, int]:
        """`(B, C, f, h, w)` of the latents of a video of this size."""
        return _shape(geometry, self.channels, self.spatial, self.latent_frames(geometry.frames))


@dataclass(frozen=True, slots=True)
class CausalCompression:
    """The first frame stands alone, every further `temporal` frames share one latent frame.

    Attributes:
        channels: latent channels.
        spatial: pixels per latent pixel along each side.
        temporal: frames per latent frame after the first.
        run: latent frames after the first come in multiples of it, where a decoder needs that to be exact.
    """

    channels: int
    spatial: int = 8
    temporal: int = 4
    run: int = 1

    def round_frames(self, frames: int) -> int:
        """The largest `1 + temporal·run·k` that is not above `frames`; at least 1."""
        step = self.temporal * self.run
        return 1 + max(frames - 1, 0) // step * step

    def latent_frames(self, frames: int) -> int:
        """`1 + (frames − 1) / temporal`, rounded down."""
        return 1 + max(frames - 1, 0) // self.temporal

    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int, int]:
        """`(B, C, f, h, w)` of the latents of a video of this size."""
        return _shape(geometry, self.channels, self.spatial, self.latent_frames(geometry.frames))


@dataclass(frozen=True, slots=True)
class RunCompression:
    """Frames are coded in runs that know nothing of each other; in a run every `temporal` frames share a latent frame.

    Attributes:
        channels: latent channels.
        spatial: pixels per latent pixel along each side.
        temporal: frames per latent frame; what is left over at the end of a run gets one, too.
        run: frames per run.
        odd_alone: the first frame of an odd number of frames is a run of its own.
    """

    channels: int
    spatial: int = 8
    temporal: int = 4
    run: int = 8
    odd_alone: bool = True

    def round_frames(self, frames: int) -> int:
        """The largest multiple of `run` that is not above `frames`; 1, a picture, if there is none."""
        return max(frames // self.run * self.run, 1)

    def latent_frames(self, frames: int) -> int:
        """Latent frames of all runs; `frames / run · (run / temporal)` for whole runs, rounded up."""
        alone = int(self.odd_alone and frames % 2)
        runs, rest = divmod(frames - alone, self.run)
        return alone + runs * -(-self.run // self.temporal) + -(-rest // self.temporal)

    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int, int]:
        """`(B, C, f, h, w)` of the latents of a video of this size."""
        return _shape(geometry, self.channels, self.spatial, self.latent_frames(geometry.frames))


def _shape(geometry: Geometry, channels: int, spatial: int, frames: int) -> tuple[int, int, int, int, int]:
    return (geometry.batch, channels, frames, geometry.height // spatial, geometry.width // spatial)


def draw(moments: Tensor, generator: Generator | None) -> Tensor:
    """The posterior's mean, or a sample of it when a generator is given (Kingma and Welling 2013, section 2.4).

    Args:
        moments: `(B, 2·C, …)`, mean and logarithm of the variance joined on channels; the latter is kept in −30…20.
        generator: draws as many normal numbers as there are means, in their dtype.
    """
    mean, logvar = moments.chunk(2, dim=1)
    if generator is None:
        return mean
    noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=mean.dtype)
    return mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * noise.to(mean.device)


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
