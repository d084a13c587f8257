"""The picture VAE of V1, diffusers' `AutoencoderKL`, on videos: every frame is a picture of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor

from easyanimate_core.vae.base import FrameCompression, draw, resize_map

__all__ = ["KL2d"]

# How diffusers called the attention's layers before 0.15; the VAEs of that time are still in use.
_ATTENTION: Final = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_RENAMED: Final = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))

# Side of a tile in pixels. The config's `sample_size` is what the VAE was trained with, which is less than it can do.
_TILE: Final = 512


class KL2d(AutoencoderKL):
    """Frames `(B, 3, F, H, W)` one by one; as many latent frames as frames.

    The constructor's arguments are the keys of the `vae/config.json` that diffusers writes; its methods, such as
    `enable_slicing`, are there, too. One frame at a time bounds memory: a clip needs no more than a picture.
    """

    @property
    def compression(self) -> FrameCompression:
        """How frames become latent frames: one by one."""
        return FrameCompression(self.config.latent_channels, 2 ** (len(self.config.block_out_channels) - 1))

    @staticmethod
    def keymap(name: str) -> str:
        """The name of a stored tensor today; those of old files differ in the attention."""
        found = _ATTENTION.fullmatch(name)
        return name if found is None else f"{found[1]}.{dict(_RENAMED)[found[2]]}.{found[3]}"

    def set_tiling(self, enabled: bool, *, size: int = _TILE) -> None:
        """Take frames larger than `size` pixels tile by tile."""
        self.use_tiling = enabled
        self.tile_sample_min_size, self.tile_latent_min_size = size, size // self.compression.spatial

    def encode_moments(self, pixels: Tensor) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to mean and log-variance, joined on channels, `(B, 2·C, F, h, w)`."""
        frames = pixels.to(self.dtype).unbind(2)
        return torch.stack([self.encode(frame).latent_dist.parameters for frame in frames], dim=2)

    def encode_video(self, pixels: Tensor, *, generator: Generator | None = None) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to scaled latents: the posterior's mode, or a sample with a generator."""
        scaled: Tensor = draw(self.encode_moments(pixels), generator) * self.config.scaling_factor
        return scaled

    def resize_map(self, pixels: Tensor, size: tuple[int, int, int], *, scaled: bool = False) -> Tensor:
        """A map `(B, C, F, H, W)` to the latents' grid `size`; see `vae.base.resize_map`."""
        resized = resize_map(pixels, size, first_frame_alone=False)
        return resized * self.config.scaling_factor if scaled else resized

    def decode_video(self, latents: Tensor) -> Tensor:
        """Scaled latents `(B, C, F, h, w)` to pixels `(B, 3, F, H, W)`, about −1…1."""
        return torch.cat(list(self.decode_stream(latents)), dim=2)

    def decode_stream(self, latents: Tensor) -> Iterator[Tensor]:
        """As `decode_video`, one frame `(B, 3, 1, H, W)` at a time."""
        z = 1 / self.config.scaling_factor * latents.to(self.dtype)
        return (self.decode(frame).sample[:, :, None] for frame in z.unbind(2))
