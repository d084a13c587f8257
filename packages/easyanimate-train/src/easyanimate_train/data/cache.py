"""Latents computed once and kept on disk, under a key that changes with anything they depend on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from easyanimate_core.checkpoints.save import write_tensors
from easyanimate_train.data.order import generator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from easyanimate_train.interfaces import TrainDataset

__all__ = ["cached_latents"]

_CHUNK = 16


def _key(dataset: TrainDataset, vae: torch.nn.Module, count: int, seed: int) -> str:
    digest = hashlib.sha256(f"{dataset.fingerprint()} {count} {seed}".encode())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def cached_latents(
    folder: Path,
    dataset: TrainDataset,
    vae: torch.nn.Module,
    count: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mapping[str, Tensor]:
    """Latents of `count` clips, encoded (by the posterior's mode) now or read from an earlier run's file.

    Args:
        folder: where cache files lie.
        dataset: item `i mod len(dataset)` gives clip `i`.
        vae: encodes; its weights are part of the key.
        count: clips.
        seed: of the clips' random draws.
        progress: called with clips done and clips in all.

    Returns:
        `latents` `(count, C, f, h, w)` float16 and `items` `(count,)` int64.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"latents-{_key(dataset, vae, count, seed)}.safetensors"
    if path.is_file():
        return load_file(path)
    parts = []
    for start in range(0, count, _CHUNK):
        numbers = range(start, min(start + _CHUNK, count))
        clips = torch.stack([dataset.pixels(i % len(dataset), generator(seed, "cache", i)) for i in numbers])
        with torch.inference_mode():
            encoded: Tensor = vae.encode_video(clips.to(next(vae.parameters()).device))  # type: ignore[operator]
        parts.append(encoded.half().cpu())
        progress(numbers[-1] + 1, count)
    tensors = {"latents": torch.cat(parts), "items": torch.arange(count) % len(dataset)}
    write_tensors(path, tensors)
    return tensors
