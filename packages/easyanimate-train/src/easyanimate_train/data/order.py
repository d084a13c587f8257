"""Which item comes when, and with which random numbers.

Everything follows from `(seed, position)`, so a resumed run needs no saved generator: it asks for the next
position.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from easyanimate_train.interfaces import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from easyanimate_train.interfaces import TrainDataset

__all__ = ["DataOrder", "generator"]


def generator(*key: int | str) -> Generator:
    """A CPU generator whose seed is a hash of the key."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class DataOrder:
    """Batches by position. Each epoch is another permutation of all items.

    Args:
        dataset: where items come from.
        seed: of the run.
        batch_size: samples per batch.
        latents: cached latents `(n, C, f, h, w)`, their item's index being `position mod len(dataset)`.
    """

    def __init__(
        self, dataset: TrainDataset, seed: int, batch_size: int, latents: Mapping[str, Tensor] | None = None
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.batch_size = batch_size
        self.latents = latents
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> Tensor:
        return torch.randperm(self._items, generator=generator(self.seed, "epoch", epoch))

    @property
    def _items(self) -> int:
        return len(self.dataset) if self.latents is None else self.latents["latents"].shape[0]

    def batch(self, number: int) -> Batch:
        """The batch of this number, counted over the whole run, all micro-steps and all processes."""
        positions = range(number * self.batch_size, (number + 1) * self.batch_size)
        picked = [int(self._permutation(p // self._items)[p % self._items]) for p in positions]
        rngs = [generator(self.seed, "item", p) for p in positions]
        if self.latents is None:
            pixels = torch.stack([self.dataset.pixels(i, rng) for i, rng in zip(picked, rngs, strict=True)])
            captions = tuple(self.dataset.caption(i, rng) for i, rng in zip(picked, rngs, strict=True))
            return Batch(captions, pixels=pixels)
        items = [int(i) for i in self.latents["items"][picked]]
        captions = tuple(self.dataset.caption(i, rng) for i, rng in zip(items, rngs, strict=True))
        return Batch(captions, latents=self.latents["latents"][picked].float())
