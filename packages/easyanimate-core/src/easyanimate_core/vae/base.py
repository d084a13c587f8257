"""What every video VAE owns: its latent-frame formula."""

from __future__ import annotations

from dataclasses import dataclass

from easyanimate_core.data import Geometry

__all__ = ["CausalCompression"]


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
