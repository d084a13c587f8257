"""Latents computed once and kept on disk, under a key that changes with anything they depend on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from easyanimate_core.checkpoints.save import write_tensors
from easyanimate_core.errors import ConfigError
from easyanimate_train.data.order import generator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from easyanimate_train.config import CacheConfig
    from easyanimate_train.interfaces import TrainDataset

__all__ = ["cached_latents"]

_CHUNK = 16
_TOLERANCE = 1e-3


def _key(dataset: TrainDataset, vae: torch.nn.Module, config: CacheConfig, seed: int) -> str:
    digest = hashlib.sha256(f"{dataset.fingerprint()} {config.clips} {config.key_frames} {seed}".encode())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _encode(vae: Any, clips: Tensor, *, key_frames: bool) -> Tensor:
    if not key_frames:
        encoded: Tensor = vae.encode_video(clips)
        return encoded
    newest = clips[:, :, :: vae.compression.temporal]
    frames = newest.transpose(1, 2).flatten(0, 1)[:, :, None]
    latents: Tensor = vae.encode_video(frames)[:, :, 0].unflatten(0, (clips.shape[0], newest.shape[2])).transpose(1, 2)
    return latents


def _check_folded(vae: Any, clips: Tensor) -> None:
    difference = (_encode(vae, clips, key_frames=True) - _encode(vae, clips, key_frames=False)).abs().max()
    if difference > _TOLERANCE:
        raise ConfigError(
            f"this VAE's latents are not its key frames' latents (they differ by {float(difference):.3g})",
            "Leave cache.key_frames off, or train the VAE with fold_time.",
        )


def cached_latents(
    folder: Path,
    dataset: TrainDataset,
    vae: Any,
    config: CacheConfig,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mapping[str, Tensor]:
    """Latents of some clips, encoded (by the posterior's mode) now or read from an earlier run's file.

    Args:
        folder: where cache files lie.
        dataset: item `i mod len(dataset)` gives clip `i`.
        vae: encodes; its weights are part of the key.
        config: how many, and how.
        seed: of the clips' random draws.
        progress: called with clips done and clips in all.

    Returns:
        `latents` `(count, C, f, h, w)` float16 and `items` `(count,)` int64.

    Raises:
        ConfigError: key frames do not suffice for this VAE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"latents-{_key(dataset, vae, config, seed)}.safetensors"
    if path.is_file():
        return load_file(path)
    parts: list[Tensor] = []
    for start in range(0, config.clips, _CHUNK):
        numbers = range(start, min(start + _CHUNK, config.clips))
        clips = torch.stack([dataset.pixels(i % len(dataset), generator(seed, "cache", i)) for i in numbers])
        with torch.inference_mode():
            clips = clips.to(next(vae.parameters()).device)
            if config.key_frames and not parts:
                _check_folded(vae, clips[:2])
            parts.append(_encode(vae, clips, key_frames=config.key_frames).half().cpu())
        progress(numbers[-1] + 1, config.clips)
    tensors = {"latents": torch.cat(parts), "items": torch.arange(config.clips) % len(dataset)}
    write_tensors(path, tensors)
    return tensors
