"""Latents computed once and kept on disk, under a key that changes with anything they depend on."""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from easyanimate_core.checkpoints.save import write_tensors
from easyanimate_core.errors import ConfigError
from easyanimate_train.data.order import draw_sample, stack_drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from easyanimate_train.config import CacheConfig
    from easyanimate_train.interfaces import Given, TrainDataset

__all__ = ["ClipEncoder", "cached_latents"]

_CHUNK = 16
_TOLERANCE = 1e-3
_INLET = "inlet."


def _key(dataset: TrainDataset, vae: torch.nn.Module, config: CacheConfig, seed: int, givens: Sequence[str]) -> str:
    said = [dataset.fingerprint(), config.clips, config.key_frames, seed, *givens]
    digest = hashlib.sha256(" ".join(map(str, said)).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class ClipEncoder:
    """Clips to latents by the posterior's mode.

    Args:
        vae: encodes.
        key_frames: encode each latent frame from its newest frame alone, and pictures of one colour once; only for a
            VAE whose time was folded.
    """

    def __init__(self, vae: Any, *, key_frames: bool = False) -> None:
        self.vae = vae
        self.key_frames = key_frames

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Clips `(B, 3, F, H, W)` in −1…1 to scaled latents `(B, C, f, h, w)`."""
        if not self.key_frames:
            encoded: Tensor = self.vae.encode_video(clips)
            return encoded
        newest = clips[:, :, :: self.vae.compression.temporal]
        frames = newest.transpose(1, 2).flatten(0, 1)[:, :, None]
        flat = frames.flatten(2)
        plain = (flat.amax(2) == flat.amin(2)).all(1)
        colours, which = flat[plain, :, 0].unique(dim=0, return_inverse=True)
        one_colour = colours[..., None, None, None].expand(-1, *frames.shape[1:])
        made: Tensor = self.vae.encode_video(torch.cat([frames[~plain], one_colour]))[:, :, 0]
        latents = made.new_empty(frames.shape[0], *made.shape[1:])
        others = frames.shape[0] - int(plain.sum())
        latents[~plain], latents[plain] = made[:others], made[others:][which]
        joined: Tensor = latents.unflatten(0, (clips.shape[0], newest.shape[2])).transpose(1, 2)
        return joined

    def check(self, clips: Tensor) -> None:
        """Show that key frames suffice.

        Raises:
            ConfigError: they do not for this VAE.
        """
        difference = float((self(clips) - ClipEncoder(self.vae)(clips)).abs().max())
        if difference > _TOLERANCE:
            raise ConfigError(
                f"this VAE's latents are not its key frames' latents (they differ by {difference:.3g})",
                "Leave cache.key_frames off, or train the VAE with fold_time.",
            )


def cached_latents(
    folder: Path,
    dataset: TrainDataset,
    vae: Any,
    config: CacheConfig,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    givens: Mapping[str, Given] = MappingProxyType({}),
) -> Mapping[str, Tensor]:
    """Latents of some clips, and what their inlets are given, encoded now or read from an earlier run's file.

    Args:
        folder: where cache files lie.
        dataset: item `i mod len(dataset)` gives clip `i`.
        vae: encodes; its weights are part of the key.
        config: how many, and how.
        seed: of the clips' random draws.
        progress: called with clips done and clips in all.
        givens: fill inlets, by a text that says all their options.

    Returns:
        `latents` `(count, C, f, h, w)` float16, `items` `(count,)` int64, `pictured` `(count,)` bool and, by
        `inlet.name`, values of inlets float16.

    Raises:
        ConfigError: key frames do not suffice for this VAE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"latents-{_key(dataset, vae, config, seed, tuple(givens))}.safetensors"
    if path.is_file():
        return load_file(path)
    encoder = ClipEncoder(vae, key_frames=config.key_frames)
    device = next(vae.parameters()).device
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, config.clips, _CHUNK):
        numbers = range(start, min(start + _CHUNK, config.clips))
        with torch.inference_mode():
            samples = [
                draw_sample(dataset, tuple(givens.values()), i % len(dataset), (seed, "cache", i)) for i in numbers
            ]
            pixels = torch.stack([sample.pixels for sample in samples]).to(device)
            if config.key_frames and not parts:
                encoder.check(pixels[:2])
            latents = encoder(pixels)
            found = {"latents": latents, "pictured": torch.tensor([sample.pictured for sample in samples])}
            for given, drawn in zip(givens.values(), stack_drawn(samples), strict=True):
                values = given.encode(encoder, pixels, latents, {k: v.to(device) for k, v in drawn.items()})
                found.update({_INLET + name: value for name, value in values.items()})
        for name, value in found.items():
            parts.setdefault(name, []).append(value.half().cpu() if value.is_floating_point() else value.cpu())
        progress(numbers[-1] + 1, config.clips)
    tensors = {name: torch.cat(values) for name, values in parts.items()}
    tensors["items"] = torch.arange(config.clips) % len(dataset)
    write_tensors(path, tensors)
    return tensors
