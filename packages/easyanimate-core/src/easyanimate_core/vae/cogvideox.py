"""CogVideoX's VAE, diffusers' `AutoencoderKLCogVideoX`, in the settings of an EasyAnimate checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.configuration_utils import register_to_config
from torch import Generator, Tensor

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.vae.base import CausalCompression, draw, resize_map

__all__ = ["CogVideoX"]

_DOWN: Final = ("CogVideoXDownBlock3D",) * 4
_UP: Final = ("CogVideoXUpBlock3D",) * 4


class CogVideoX(AutoencoderKLCogVideoX):
    """Causal 3-D VAE whose norms look at all frames of a run: 4 frames are coded at a time, 2 latent frames decoded.

    What is left over goes with the first run. A decoded run doubles all frames but the first of an odd number, so clips
    of `1 + 8k` frames come back with their length; others of `1 + 4k` get three frames more.

    No released EasyAnimate model uses it. The constructor's arguments are the keys of a `vae/config.json`; the switches
    of `Magvit` among them have no effect here.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: tuple[str, ...] = _DOWN,
        up_block_types: tuple[str, ...] = _UP,
        block_out_channels: tuple[int, ...] = (128, 256, 256, 512),
        latent_channels: int = 16,
        layers_per_block: int = 3,
        act_fn: str = "silu",
        norm_eps: float = 1e-6,
        norm_num_groups: int = 32,
        temporal_compression_ratio: int = 4,
        sample_height: int = 480,
        sample_width: int = 720,
        scaling_factor: float = 1.15258426,
        shift_factor: float | None = None,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        use_quant_conv: bool = False,
        use_post_quant_conv: bool = False,
        use_tiling: bool = False,
        slice_mag_vae: bool = False,
        slice_compression_vae: bool = False,
        cache_compression_vae: bool = False,
        cache_mag_vae: bool = True,
        mini_batch_encoder: int = 4,
        mini_batch_decoder: int = 1,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=tuple(down_block_types),
            up_block_types=tuple(up_block_types),
            block_out_channels=tuple(block_out_channels),
            latent_channels=latent_channels,
            layers_per_block=layers_per_block,
            act_fn=act_fn,
            norm_eps=norm_eps,
            norm_num_groups=norm_num_groups,
            temporal_compression_ratio=temporal_compression_ratio,
            sample_height=sample_height,
            sample_width=sample_width,
            scaling_factor=scaling_factor,
            use_quant_conv=use_quant_conv,
            use_post_quant_conv=use_post_quant_conv,
        )
        self.num_sample_frames_batch_size = mini_batch_encoder
        self.use_tiling = use_tiling
        self.compression = CausalCompression(
            latent_channels,
            2 ** (len(block_out_channels) - 1),
            temporal_compression_ratio,
            run=self.num_latent_frames_batch_size,
        )

    @staticmethod
    def keymap(name: str) -> str:
        """The name of a stored tensor, which is the module's: diffusers' own."""
        return name

    def set_tiling(self, enabled: bool, *, size: tuple[int, int] | None = None) -> None:
        """Take frames larger than `size` (height, width in pixels) tile by tile; half the sample size if not given.

        Raises:
            InvalidRequest: tiles of this size would not join: a sixth of the height and a fifth of the width overlap.
        """
        if enabled and size is not None:
            steps = 6 * self.compression.spatial, 5 * self.compression.spatial
            if size[0] % steps[0] or size[1] % steps[1]:
                raise InvalidRequest(
                    f"this VAE cannot work in tiles of '{size[0]}x{size[1]}' pixels",
                    f"Use a multiple of {steps[0]} for the height and of {steps[1]} for the width.",
                )
            self.enable_tiling(*size)
        self.use_tiling = enabled

    def encode_moments(self, pixels: Tensor) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to mean and log-variance, joined on channels, `(B, 2·C, f, h, w)`.

        Raises:
            InvalidRequest: a frame count that is not `1 + 4k`.
        """
        frames, temporal = pixels.shape[2], self.compression.temporal
        if frames % temporal != 1:
            fitting = 1 + (frames - 1) // temporal * temporal
            raise InvalidRequest(
                f"this VAE encodes 1 + {temporal}k frames, not '{frames}'", f"Use {max(fitting, 1)} frames."
            )
        moments: Tensor = self.encode(pixels.to(self.dtype)).latent_dist.parameters
        return moments

    def encode_video(self, pixels: Tensor, *, generator: Generator | None = None) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to scaled latents: the posterior's mode, or a sample with a generator."""
        scaled: Tensor = draw(self.encode_moments(pixels), generator) * self.config.scaling_factor
        return scaled

    def resize_map(self, pixels: Tensor, size: tuple[int, int, int], *, scaled: bool = False) -> Tensor:
        """A map `(B, C, F, H, W)` to the latents' grid `size`, the first frame alone; see `vae.base.resize_map`."""
        resized = resize_map(pixels, size, first_frame_alone=True)
        return resized * self.config.scaling_factor if scaled else resized

    def decode_video(self, latents: Tensor) -> Tensor:
        """Scaled latents `(B, C, f, h, w)` to pixels `(B, 3, F, H, W)`, about −1…1."""
        return torch.cat(list(self.decode_stream(latents)), dim=2)

    def decode_stream(self, latents: Tensor) -> Iterator[Tensor]:
        """As `decode_video`, one run of frames `(B, 3, F', H, W)` at a time; with tiles all at once."""
        z = 1 / self.config.scaling_factor * latents.to(self.dtype)
        large = z.shape[-2] > self.tile_latent_min_height or z.shape[-1] > self.tile_latent_min_width
        if self.use_tiling and large:
            yield self.tiled_decode(z).sample
            return
        size, memory = self.num_latent_frames_batch_size, None
        first = min(size + z.shape[2] % size, z.shape[2])
        starts = [0, *range(first, z.shape[2], size)]
        for start, stop in zip(starts, [*starts[1:], z.shape[2]], strict=True):
            run = z[:, :, start:stop]
            if self.post_quant_conv is not None:
                run = self.post_quant_conv(run)
            frames, memory = self.decoder(run, conv_cache=memory)
            yield frames
