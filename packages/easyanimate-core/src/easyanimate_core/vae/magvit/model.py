"""The autoencoder: posterior, scaling, runs along time and tiles in space."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Generator, Tensor, nn

from easyanimate_core.errors import CheckpointMismatch
from easyanimate_core.vae.base import draw, resize_map
from easyanimate_core.vae.magvit.blocks import Layout
from easyanimate_core.vae.magvit.coder import Decoder, Encoder
from easyanimate_core.vae.magvit.passes import rejoin
from easyanimate_core.vae.magvit.schemes import scheme_of
from easyanimate_core.vae.magvit.tiling import TileGrid, blend_corner, by_tiles, join

__all__ = ["Magvit"]

_ATTENTION: Final = (("3d", "video"), ("spatial", "frame"))

# Frames of tiles that are joined at once.
_JOINED: Final = 4


def _block_types(value: Sequence[str] | str) -> tuple[str, ...]:
    """Released configs hold a list, or a string with a Python tuple in it."""
    return tuple(ast.literal_eval(value)) if isinstance(value, str) else tuple(value)


def _layout(config: Mapping[str, Any]) -> Layout:
    """What the stages have in common, of a complete config.

    Raises:
        CheckpointMismatch: layers that no release has.
    """
    kind, gc_blocks = config["mid_block_attention_type"], config["use_gc_blocks"]
    attention = dict(_ATTENTION).get(kind) if config["mid_block_use_attention"] else None
    if (config["mid_block_use_attention"] and attention is None) or any(gc_blocks or ()):
        raise CheckpointMismatch(
            f"no release has mid_block_attention_type '{kind}' with use_gc_blocks '{gc_blocks}'",
            "Use '3d' or 'spatial', and no gc blocks.",
        )
    return Layout(
        config["layers_per_block"],
        config["norm_num_groups"],
        config["spatial_group_norm"],
        attention,
        config["mid_block_num_attention_heads"],
    )


class Magvit(ModelMixin, ConfigMixin):
    """3-D VAE of V2 to V5.1.

    The constructor's arguments are the keys of a released `vae/config.json`; its `…_vae` switches name the temporal
    scheme, see `magvit.schemes`. Pixels are in −1…1, latents are scaled by `scaling_factor` on the way out and in, so
    callers never see it.

    Raises:
        CheckpointMismatch: the config asks for layers that no release has, or contradicts itself.
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
        widths = tuple(block_out_channels or (ch * m for m in ch_mult))
        down = [t.startswith("SpatialTemporal") for t in _block_types(down_block_types)]
        up = [t.startswith("SpatialTemporal") for t in _block_types(up_block_types)]
        spatial = 2 ** (len(widths) - 1)
        self.scheme = scheme_of(
            self.config, channels=latent_channels, spatial=spatial, temporal=2 ** sum(down[: len(widths) - 1])
        )
        self.compression = self.scheme.compression
        layout = _layout(self.config)
        self.encoder = Encoder(in_channels, 2 * latent_channels, widths, down, layout)
        self.decoder = Decoder(latent_channels, out_channels, widths, up, layout)
        self.quant_conv = nn.Conv3d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv3d(latent_channels, latent_channels, 1)
        self.tile_size = tile_sample_min_size
        self.tile_latent_size = tile_sample_min_size // spatial
        self.tiles_together = 1
        self.slicing = False
        self.caching = True
        self.tile_encoder = use_tiling or use_tiling_encoder
        self.tile_decoder = use_tiling or use_tiling_decoder

    def set_tiling(self, enabled: bool, *, size: int | None = None, together: int = 1) -> None:
        """Take frames larger than `size` pixels tile by tile; the config's size when not given.

        Args:
            enabled: for encoding and decoding.
            size: side of a tile in pixels.
            together: tiles of the same size that are taken at once, as a batch: more memory, fewer, larger operations.
        """
        self.tile_encoder = self.tile_decoder = enabled
        self.tiles_together = together
        if size is not None:
            self.tile_size, self.tile_latent_size = size, size // self.compression.spatial

    def set_slicing(self, enabled: bool) -> None:
        """Take the samples of a batch one after the other, which bounds memory; results are the same."""
        self.slicing = enabled

    def set_caching(self, enabled: bool) -> None:
        """Whether a clip is taken run by run, with a cache between runs; on when made.

        Off, schemes that have a cache take all frames in one run and remember nothing, as is best where gradients flow
        through the VAE: to rewards of the first decoded frames, or to its own weights. Pixels and latents stay the same
        with `cache_mag_vae`; with `cache_compression_vae` its norms then look at all frames. Schemes without a cache do
        not change.
        """
        self.caching = enabled

    def _ready(self, x: Tensor) -> Tensor:
        if self.config.upcast_vae and self.dtype != torch.float32:
            self.float()
        return x.to(self.dtype)

    def encode_moments(self, pixels: Tensor, *, whole: bool = False) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to mean and log-variance, joined on channels, `(B, 2·C, f, h, w)`.

        Args:
            pixels: `F` as the scheme takes it: `1 + 4k` with `cache_mag_vae`, else any; sides multiples of the spatial
                compression.
            whole: as if caching were off, see `set_caching`.

        Raises:
            InvalidRequest: a frame count that the scheme cannot encode exactly.
        """
        if self.slicing and pixels.shape[0] > 1:
            return torch.cat([self.encode_moments(sample, whole=whole) for sample in pixels.split(1)])
        whole = whole or not self.caching
        # Refuses before anything is computed or cast.
        self.scheme.encoding(pixels.shape[2], whole=whole)
        pixels = self._ready(pixels)
        if not (self.tile_encoder and max(pixels.shape[-2:]) > self.tile_size):
            return self._encoded(pixels, whole)
        overlap = self.config.tile_overlap_factor
        blend = int(self.tile_latent_size * overlap)
        grid = TileGrid(self.tile_size, int(self.tile_size * (1 - overlap)), blend, self.tile_latent_size - blend)
        return join(by_tiles(pixels, grid, lambda tile: self._encoded(tile, whole), self.tiles_together), grid)

    def _encoded(self, pixels: Tensor, whole: bool) -> Tensor:
        runs = self.scheme.encoding(pixels.shape[2], whole=whole)
        return rejoin([self.quant_conv(self.encoder(pixels[:, :, run.frames], run)) for run in runs])

    def encode_video(self, pixels: Tensor, *, generator: Generator | None = None) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to scaled latents: the posterior's mode, or a sample with a generator."""
        scaled: Tensor = draw(self.encode_moments(pixels), generator) * self.config.scaling_factor
        return scaled

    def resize_map(self, pixels: Tensor, size: tuple[int, int, int], *, scaled: bool = False) -> Tensor:
        """A map `(B, C, F, H, W)` to the latents' grid `size`; see `vae.base.resize_map`."""
        resized = resize_map(pixels, size, first_frame_alone=self.scheme.lone_first)
        return resized * self.config.scaling_factor if scaled else resized

    def decode_video(self, latents: Tensor) -> Tensor:
        """Scaled latents `(B, C, f, h, w)` to pixels `(B, 3, F, H, W)`, about −1…1."""
        if self.slicing and latents.shape[0] > 1:
            return torch.cat([self.decode_video(sample) for sample in latents.split(1)])
        return rejoin(list(self.decode_stream(latents)))

    def decode_stream(self, latents: Tensor, *, whole: bool = False) -> Iterator[Tensor]:
        """As `decode_video`, one run of frames `(B, 3, F', H, W)` at a time.

        With tiles, every tile is decoded through all of time before the next one, so that only one tile's cache is
        held; frames leave after the last tile.

        Args:
            latents: scaled latents.
            whole: as if caching were off, see `set_caching`.
        """
        z = 1 / self.config.scaling_factor * self._ready(latents)
        whole = whole or not self.caching
        if not (self.tile_decoder and max(z.shape[-2:]) > self.tile_latent_size):
            yield from self._decoded(z, whole)
            return
        overlap, size = self.config.tile_overlap_factor, self.tile_latent_size
        blend = int(self.tile_size * overlap)
        grid = TileGrid(size, int(size * (1 - overlap)), blend, self.tile_size - blend)

        def decoded(tile: Tensor) -> Tensor:
            return rejoin(list(self._decoded(tile, whole)))

        tiles = by_tiles(z, grid, decoded, self.tiles_together)
        corner = decoded(z[..., -size:, -size:])
        # Joined a few frames at a time, so that there is no second copy of all of them.
        for i in range(0, corner.shape[2], _JOINED):
            part = slice(i, i + _JOINED)
            yield blend_corner(join([[tile[:, :, part] for tile in row] for row in tiles], grid), corner[:, :, part])

    def _decoded(self, z: Tensor, whole: bool) -> Iterator[Tensor]:
        for run in self.scheme.decoding(z.shape[2], whole=whole):
            yield self.decoder(self.post_quant_conv(z[:, :, run.seen]), run)

    def smoothed(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Runs of finished frames `(B, 3, F', H, W)`, with the seams between runs smoothed where the scheme has any.

        The middle of the clip is encoded and decoded once more, with seams half a run further on, and becomes the mean
        of both. That needs the whole clip, which then comes in one piece, clamped to −1…1. Where nothing is to be
        smoothed, the frames go through as they come.
        """
        if not self.scheme.smooths:
            yield from frames
            return
        video = torch.cat(list(frames), dim=2).clamp(-1, 1)
        run = self.config.mini_batch_encoder
        if video.shape[2] > run:
            middle = slice(run // 2, video.shape[2] - (run - run // 2))
            again = self.decode_video(self.encode_video(video[:, :, middle]))
            video[:, :, middle] = (video[:, :, middle] + again) / 2
        yield video.clamp(-1, 1)
