"""Which item comes when, and with which random numbers.

Everything follows from `(seed, position)`, so a resumed run needs no saved generator: it asks for the next
position.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from easyanimate_core.errors import ConfigError
from easyanimate_train.interfaces import Batch, HasSignals, SaysChange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Generator, Tensor

    from easyanimate_train.interfaces import Given, TrainDataset

__all__ = ["DataOrder", "Sample", "draw_sample", "generator", "stack_drawn"]


def generator(*key: int | str) -> Generator:
    """A CPU generator whose seed is a hash of the key."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip and what was drawn for it.

    Attributes:
        pixels: `(3, F, H, W)` in −1…1.
        drawn: `Drawn.values` of each given.
        pictured: a given shows what the clip looks like.
    """

    pixels: Tensor
    drawn: tuple[Mapping[str, Tensor], ...] = ()
    pictured: bool = False


def draw_sample(dataset: TrainDataset, givens: Sequence[Given], index: int, key: tuple[int | str, ...]) -> Sample:
    """One clip of a dataset, with what its inlets are given; everything random follows from the key.

    Raises:
        ConfigError: a given needs a signal that the dataset does not have.
    """
    pixels = dataset.pixels(index, generator(*key))
    needed = {name for given in givens for name in given.needs}
    signals = dataset.signals(index, generator(*key)) if needed and isinstance(dataset, HasSignals) else {}
    if missing := sorted(needed - signals.keys()):
        raise ConfigError(
            f"the dataset '{type(dataset).__name__}' does not know '{missing[0]}', which a given needs",
            f"It knows: {', '.join(sorted(signals)) or 'nothing besides pixels'}.",
        )
    drawn = [given.draw(pixels, signals, generator(*key, "given", i)) for i, given in enumerate(givens)]
    return Sample(pixels, tuple(one.values for one in drawn), any(one.pictured for one in drawn))


def stack_drawn(samples: Sequence[Sample]) -> tuple[Mapping[str, Tensor], ...]:
    """What was drawn for several clips, per given."""
    return tuple(
        {name: torch.stack([sample.drawn[i][name] for sample in samples]) for name in values}
        for i, values in enumerate(samples[0].drawn)
    )


class DataOrder:
    """Batches by position. Each epoch is another permutation of all items.

    Args:
        dataset: where items come from.
        seed: of the run.
        batch_size: samples per batch.
        latents: what `cached_latents` gives.
        givens: fill inlets, where nothing was cached.
    """

    def __init__(
        self,
        dataset: TrainDataset,
        seed: int,
        batch_size: int,
        latents: Mapping[str, Tensor] | None = None,
        *,
        givens: Sequence[Given] = (),
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.batch_size = batch_size
        self.latents = latents
        self.givens = givens
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
        if self.latents is None:
            keys = [(self.seed, "item", p) for p in positions]
            samples = [draw_sample(self.dataset, self.givens, i, key) for i, key in zip(picked, keys, strict=True)]
            pixels = torch.stack([sample.pixels for sample in samples])
            captions = self._captions(positions, picked, [sample.pictured for sample in samples])
            return Batch(captions, pixels=pixels, drawn=stack_drawn(samples))
        cached = {name: tensor[picked] for name, tensor in self.latents.items()}
        shown = cached["pictured"].tolist() if "pictured" in cached else [False] * len(picked)
        captions = self._captions(positions, cached["items"].tolist(), shown)
        inlets = {name.removeprefix("inlet."): t.float() for name, t in cached.items() if name.startswith("inlet.")}
        return Batch(captions, latents=cached["latents"].float(), inlets=inlets)

    def _captions(self, positions: range, items: Sequence[int], pictured: Sequence[bool]) -> tuple[str, ...]:
        dataset = self.dataset
        return tuple(
            dataset.caption_change(i, generator(self.seed, "caption", p))
            if shown and isinstance(dataset, SaysChange)
            else dataset.caption(i, generator(self.seed, "caption", p))
            for p, i, shown in zip(positions, items, pictured, strict=True)
        )
