"""The autoencoder: posterior, scaling, chunks along time and tiles in space."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Generator, Tensor, nn

from easyanimate_core.errors import CheckpointMismatch, InvalidRequest
from easyanimate_core.vae.base import CausalCompression, resize_map
from easyanimate_core.vae.magvit.causal_conv import TimeStream
from easyanimate_core.vae.magvit.coder import Decoder, Encoder, Layout
from easyanimate_core.vae.magvit.tiling import TileGrid, blend_corner, join

__all__ = ["Magvit"]


def _block_types(value: Sequence[str] | str) -> tuple[str, ...]:
    """Released configs hold a list, or a string with a Python tuple in it."""
    return tuple(ast.literal_eval(value)) if isinstance(value, str) else tuple(value)


class Magvit(ModelMixin, ConfigMixin):
    """Causal 3-D VAE whose convolutions remember earlier chunks (the `cache_mag` scheme of V5 and V5.1).

    The constructor's arguments are the keys of a released `vae/config.json`. Pixels are in −1…1, latents
    are scaled by `scaling_factor` on the way out and in, so callers never see it.

    Raises:
        CheckpointMismatch: the config asks for a temporal scheme or attention that is not supported.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ch: int = 128,
        ch_mult: tuple[int, ...] = (1, 2, 4, 4),
        block_out_channels: tuple[int, ...] | None = (128, 256, 512, 512),
        down_block_types: tuple[str, ...] | str = ("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types: tuple[str, ...] | str = ("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3),
        use_gc_blocks: tuple[bool, ...] | None = None,
        mid_block_type: str = "MidBlock3D",
        mid_block_use_attention: bool = True,
        mid_block_attention_type: str = "3d",
        mid_block_num_attention_heads: int = 1,
        num_attention_heads: int = 1,
        layers_per_block: int = 2,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        scaling_factor: float = 0.1825,
        slice_mag_vae: bool = True,
        slice_compression_vae: bool = False,
        cache_compression_vae: bool = False,
        cache_mag_vae: bool = False,
        mini_batch_encoder: int = 9,
        mini_batch_decoder: int = 3,
        spatial_group_norm: bool = False,
        upcast_vae: bool = False,
        use_tiling: bool = False,
        use_tiling_encoder: bool = False,
        use_tiling_decoder: bool = False,
        tile_sample_min_size: int = 384,
        tile_overlap_factor: float = 0.25,
    ) -> None:
        super().__init__()
        if not (cache_mag_vae and spatial_group_norm):
            raise CheckpointMismatch(
                "this VAE config does not use the 'cache_mag_vae' scheme with per-frame norms",
                "Only the VAEs of V5 and V5.1 are supported so far.",
            )
        heads = mid_block_num_attention_heads if mid_block_use_attention else None
        if heads and mid_block_attention_type != "spatial":
            raise CheckpointMismatch(
                f"mid_block_attention_type '{mid_block_attention_type}' is not supported", "Use 'spatial'."
            )
        widths = tuple(block_out_channels or (ch * m for m in ch_mult))
        down = [t.startswith("SpatialTemporal") for t in _block_types(down_block_types)]
        up = [t.startswith("SpatialTemporal") for t in _block_types(up_block_types)]
        shape = Layout(layers_per_block, norm_num_groups, heads)
        self.encoder = Encoder(in_channels, 2 * latent_channels, widths, down, shape)
        self.decoder = Decoder(latent_channels, out_channels, widths, up, shape)
        self.quant_conv = nn.Conv3d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv3d(latent_channels, latent_channels, 1)
        self.compression = CausalCompression(latent_channels, 2 ** (len(widths) - 1), 2 ** sum(down[:-1]))
        self.tile_size = tile_sample_min_size
        self.tile_latent_size = tile_sample_min_size // 2 ** (len(widths) - 1)
        self.slicing = False
        self.tile_encoder = use_tiling or use_tiling_encoder
        self.tile_decoder = use_tiling or use_tiling_decoder

    def set_tiling(self, enabled: bool, *, size: int | None = None) -> None:
        """Take frames larger than `size` pixels tile by tile; the config's size when not given."""
        self.tile_encoder = self.tile_decoder = enabled
        if size is not None:
            self.tile_size, self.tile_latent_size = size, size // self.compression.spatial

    def set_slicing(self, enabled: bool) -> None:
        """Take the samples of a batch one after the other, which bounds memory; results are the same."""
        self.slicing = enabled

    def _ready(self, x: Tensor) -> Tensor:
        if self.config.upcast_vae and self.dtype != torch.float32:
            self.float()
        return x.to(self.dtype)

    def _chunks(self, length: int, size: int) -> Iterator[slice]:
        """The first frame alone, then `size` at a time. The size only bounds memory: results are equal."""
        yield slice(0, 1)
        for start in range(1, length, size):
            yield slice(start, min(start + size, length))

    def encode_moments(self, pixels: Tensor, *, whole: bool = False) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to mean and log-variance, joined on channels, `(B, 2·C, f, h, w)`.

        Args:
            pixels: `F` must be `1 + 4k`; sides multiples of the spatial compression.
            whole: one pass over all frames (for training) instead of chunks; the result is the same.

        Raises:
            InvalidRequest: a frame count that the scheme cannot encode exactly.
        """
        frames = pixels.shape[2]
        if frames != self.compression.round_frames(frames):
            raise InvalidRequest(
                f"this VAE encodes 1 + {self.compression.temporal}k frames, not '{frames}'",
                f"Use {self.compression.round_frames(frames)} frames.",
            )
        if self.slicing and pixels.shape[0] > 1:
            return torch.cat([self.encode_moments(sample, whole=whole) for sample in pixels.split(1)])
        pixels = self._ready(pixels)
        tiled = self.tile_encoder and max(pixels.shape[-2:]) > self.tile_size
        blend = int(self.tile_latent_size * self.config.tile_overlap_factor)
        grid = TileGrid(
            self.tile_size,
            int(self.tile_size * (1 - self.config.tile_overlap_factor)),
            blend,
            self.tile_latent_size - blend,
        )
        tiles = grid.rows(*pixels.shape[-2:]) if tiled else [[(slice(None), slice(None))]]
        streams = [[TimeStream() for _ in row] for row in tiles]
        cuts = [slice(None)] if whole else self._chunks(frames, self.config.mini_batch_encoder)
        done = []
        for cut in cuts:
            parts = [
                [self._encode_tile(pixels[:, :, cut, y, x], stream) for (y, x), stream in zip(*pair, strict=True)]
                for pair in zip(tiles, streams, strict=True)
            ]
            done.append(join(parts, grid) if tiled else parts[0][0])
        return torch.cat(done, dim=2)

    def _encode_tile(self, pixels: Tensor, stream: TimeStream) -> Tensor:
        moments: Tensor = self.quant_conv(self.encoder(pixels, stream))
        stream.advance()
        return moments

    def encode_video(self, pixels: Tensor, *, generator: Generator | None = None) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to scaled latents: the posterior's mode, or a sample with a generator."""
        mean, logvar = self.encode_moments(pixels).chunk(2, dim=1)
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=mean.dtype)
            mean = mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * noise.to(mean.device)
        scaled: Tensor = mean * self.config.scaling_factor
        return scaled

    def resize_map(self, pixels: Tensor, size: tuple[int, int, int], *, scaled: bool = False) -> Tensor:
        """A map `(B, C, F, H, W)` to the latents' grid `size`, the first frame alone; see `vae.base.resize_map`."""
        resized = resize_map(pixels, size, first_frame_alone=True)
        return resized * self.config.scaling_factor if scaled else resized

    def decode_video(self, latents: Tensor) -> Tensor:
        """Scaled latents `(B, C, f, h, w)` to pixels `(B, 3, F, H, W)`, about −1…1."""
        samples = latents.split(1) if self.slicing else (latents,)
        return torch.cat([torch.cat(list(self.decode_stream(sample)), dim=2) for sample in samples])

    def decode_stream(self, latents: Tensor, *, whole: bool = False) -> Iterator[Tensor]:
        """As `decode_video`, one chunk of frames `(B, 3, F', H, W)` at a time.

        Args:
            latents: scaled latents.
            whole: one pass over all latent frames (for training).
        """
        z = 1 / self.config.scaling_factor * self._ready(latents)
        tiled = self.tile_decoder and max(z.shape[-2:]) > self.tile_latent_size
        blend = int(self.tile_size * self.config.tile_overlap_factor)
        size = self.tile_latent_size
        grid = TileGrid(size, int(size * (1 - self.config.tile_overlap_factor)), blend, self.tile_size - blend)
        tiles = grid.rows(*z.shape[-2:]) if tiled else [[(slice(None), slice(None))]]
        streams = [[TimeStream() for _ in row] for row in tiles]
        corner = TimeStream()
        cuts = [slice(None)] if whole else self._chunks(z.shape[2], self.config.mini_batch_decoder)
        for cut in cuts:
            parts = [
                [self._decode_tile(z[:, :, cut, y, x], stream) for (y, x), stream in zip(*pair, strict=True)]
                for pair in zip(tiles, streams, strict=True)
            ]
            if tiled:
                yield blend_corner(join(parts, grid), self._decode_tile(z[:, :, cut, -size:, -size:], corner))
            else:
                yield parts[0][0]

    def _decode_tile(self, z: Tensor, stream: TimeStream) -> Tensor:
        pixels: Tensor = self.decoder(self.post_quant_conv(z), stream)
        stream.advance()
        return pixels
