"""The contract of the slot `vaes`."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from easyanimate_core.data import Geometry
from easyanimate_core.interfaces import SupportsMaps, SupportsTiling
from easyanimate_core.testing.contracts.contract import Contract, can, close, draw, ensure, rule
from easyanimate_core.testing.tiny.folders import seeded

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VideoVAEContract"]


class VideoVAEContract(Contract):
    """A `VideoVAE`: the latent-frame formula, the round trip, and decoding as a stream.

    Attributes:
        config: content of a small `vae/config.json`.
        frames: lengths that are tried, after rounding.
        size: height and width in pixels.
        tolerance: largest difference of a sample beside another, and of frames that are streamed.
    """

    slot: ClassVar[str] = "vaes"
    config: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    frames: ClassVar[tuple[int, ...]] = (1, 9)
    size: ClassVar[tuple[int, int]] = (16, 32)
    tolerance: ClassVar[float] = 2e-5

    def create(self) -> Any:
        """A new VAE with random weights, by the call that a checkpoint's loader makes."""
        # Without a config it would be built as large as a release.
        ensure(bool(self.config), "the contract has no `config`: say that of a small one")
        with seeded(0), torch.no_grad():
            vae = self.registry().load(self.component)(**self.config)
        return vae.eval() if isinstance(vae, nn.Module) else vae

    def clip(self, frames: int, *, seed: int = 0) -> Tensor:
        """Pixels `(1, 3, F, H, W)` in −1…1."""
        return draw(1, 3, frames, *self.size, seed=seed).tanh()

    def _lengths(self, vae: Any) -> list[int]:
        return sorted({vae.compression.round_frames(frames) for frames in self.frames})

    @rule
    def test_round_frames_rounds_down_to_what_can_be_made(self) -> None:
        """`round_frames` gives the largest length that is not above the asked one, at least 1, and keeps what fits.

        If this fails: see `Compression.round_frames`.
        """
        compression = self.create().compression
        for asked in range(1, 40):
            rounded = compression.round_frames(asked)
            ensure(1 <= rounded <= max(asked, 1), f"{asked} frames become '{rounded}'")
            ensure(compression.round_frames(rounded) == rounded, f"{rounded} frames become others again")

    @rule
    def test_latents_have_the_shape_that_is_promised(self) -> None:
        """`encode_video` gives latents of the shape that `compression.latent_shape` says, finite.

        If this fails: the formula is the only one that anybody knows; it must be the encoder's own.
        """
        vae = self.create()
        for frames in self._lengths(vae):
            wanted = tuple(vae.compression.latent_shape(Geometry(*self.size, frames)))
            with torch.no_grad():
                latents = vae.encode_video(self.clip(frames))
            ensure(
                tuple(latents.shape) == wanted, f"{frames} frames become '{tuple(latents.shape)}' instead of {wanted}"
            )
            ensure(wanted[1] == vae.compression.channels, f"latents have '{wanted[1]}' channels")
            told = vae.compression.latent_frames(frames)
            ensure(wanted[2] == told, f"'latent_frames' says '{told}' for {frames} frames, 'latent_shape' {wanted[2]}")
            ensure(latents.isfinite().all(), "latents are not finite")

    @rule
    def test_decoding_gives_the_clips_shape_back(self) -> None:
        """`decode_video` of a clip's latents has the clip's shape and is finite.

        If this fails: a length that `round_frames` keeps must come back whole.
        """
        vae = self.create()
        for frames in self._lengths(vae):
            clip = self.clip(frames)
            with torch.no_grad():
                decoded = vae.decode_video(vae.encode_video(clip))
            ensure(decoded.shape == clip.shape, f"{tuple(clip.shape)} comes back as '{tuple(decoded.shape)}'")
            ensure(decoded.isfinite().all(), "the frames are not finite")

    @rule
    def test_streamed_frames_are_those_of_the_whole(self) -> None:
        """The chunks of `decode_stream`, joined along time, are what `decode_video` gives.

        If this fails: what a chunk knows of the one before it must be kept exactly, and only within one call.
        """
        vae = self.create()
        for frames in self._lengths(vae):
            latents = draw(*vae.compression.latent_shape(Geometry(*self.size, frames)))
            with torch.no_grad():
                whole = vae.decode_video(latents)
                streamed = torch.cat(list(vae.decode_stream(latents)), dim=2)
                next(iter(vae.decode_stream(latents)))  # somebody stops in the middle
                again = torch.cat(list(vae.decode_stream(latents)), dim=2)
            close(streamed, whole, self.tolerance, f"the stream of {frames} frames")
            close(again, streamed, 0, "a second stream, after one that stopped early,")

    @rule
    def test_samples_do_not_meet(self) -> None:
        """A clip of a batch is encoded and decoded as it is alone.

        If this fails: look for norms over the batch.
        """
        vae = self.create()
        frames = self._lengths(vae)[-1]
        clips = [self.clip(frames), self.clip(frames, seed=1)]
        with torch.no_grad():
            latents = vae.encode_video(torch.cat(clips))
            decoded = vae.decode_video(latents)
            for index, clip in enumerate(clips):
                one = slice(index, index + 1)
                close(latents[one], vae.encode_video(clip), self.tolerance, f"the latents of clip {index}")
                close(decoded[one], vae.decode_video(latents[one]), self.tolerance, f"the frames of clip {index}")

    @rule
    def test_encoding_repeats_and_samples_with_a_generator(self) -> None:
        """Without a generator the same clip gives the same latents; with one, the same seed does.

        If this fails: the posterior's mode needs no random numbers, a sample takes them from the generator alone.
        """
        vae, clip = self.create(), self.clip(1)
        with torch.no_grad():
            close(vae.encode_video(clip), vae.encode_video(clip), 0, "a repeat")
            drawn = [vae.encode_video(clip, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
        close(drawn[1], drawn[0], 0, "a repeat with the same seed")
        ensure(not torch.equal(drawn[2], drawn[0]), "another seed gives the same sample")

    @rule
    def test_tiling_can_be_switched(self) -> None:
        """With tiling, shapes stay; frames of one tile do not change; without it all is as before. Optional.

        If this fails: see `SupportsTiling`; `set_tiling(False)` gives up tiles altogether.
        """
        vae = self.create()
        if not can(vae, SupportsTiling):
            raise unittest.SkipTest("it does not work tile by tile")
        clip = self.clip(1)
        with torch.no_grad():
            vae.set_tiling(False)
            latents = vae.encode_video(clip)
            frames = vae.decode_video(latents)
            vae.set_tiling(True)
            tiled, tiled_frames = vae.encode_video(clip), vae.decode_video(latents)
            vae.set_tiling(False)
            after = vae.encode_video(clip)
        ensure(tiled.shape == latents.shape, f"tiled latents have the shape '{tuple(tiled.shape)}'")
        ensure(tiled_frames.shape == frames.shape, f"tiled frames have the shape '{tuple(tiled_frames.shape)}'")
        close(after, latents, 0, "latents after tiling was switched off")

    @rule
    def test_maps_come_to_the_latents_grid(self) -> None:
        """`resize_map` brings any number of channels to a grid `(f, h, w)`, and one colour stays one. Optional.

        If this fails: see `SupportsMaps`; only `scaled=True` multiplies.
        """
        vae = self.create()
        if not can(vae, SupportsMaps):
            raise unittest.SkipTest("it does not resize maps")
        for frames in self._lengths(vae):
            _, _, *grid = vae.compression.latent_shape(Geometry(*self.size, frames))
            one = torch.ones(1, 6, frames, *self.size)
            resized = vae.resize_map(one, (grid[0], grid[1], grid[2]))
            close(resized, torch.ones(1, 6, *grid), 1e-5, f"a map of ones of {frames} frames")

    @rule
    def test_it_computes_in_its_own_dtype(self) -> None:
        """A VAE in bfloat16 takes bfloat16 pixels and gives finite latents and frames.

        If this fails: cast inputs to the weights' dtype; a VAE that needs float32 may lift itself.
        """
        vae = self.create().to(torch.bfloat16)
        with torch.no_grad():
            latents = vae.encode_video(self.clip(1).bfloat16())
            frames = vae.decode_video(latents)
        ensure(latents.isfinite().all() and frames.isfinite().all(), "they are not finite")
        ensure(latents.is_floating_point(), f"latents are '{latents.dtype}'")
