"""How much memory a computation needs at its peak, counted and not measured: also on tensors that have no data."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["PeakMemory"]


class PeakMemory(TorchDispatchMode):
    """Inside, counts the bytes of every tensor that an operation makes, from then until nobody holds it.

    On the `meta` device the real sizes of a model can be counted on a small machine: nothing is allocated and nothing
    is computed. Tensors from before (weights, inputs) do not count, and neither does what a library takes for itself
    within one operation (a convolution's workspace). An operation that works in place or gives a view takes nothing.

        with torch.device("meta"):
            vae, latents = Magvit(**config), torch.empty(1, 16, 13, 96, 168)
        with torch.no_grad(), PeakMemory() as memory:
            vae.decode_video(latents)
        print(memory.peak)

    Attributes:
        now: bytes held at this moment.
        peak: the most that were held at once.
        operations: how many operations ran.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self.operations = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the operation and counts what it made."""
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        self.operations += 1
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage(), given)
        return made

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        address = storage._cdata
        if address in self._held or address in given:
            return
        self._held[address] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, address)

    def _release(self, address: int) -> None:
        self.now -= self._held.pop(address)


def _address(tensor: torch.Tensor) -> int:
    """What tells one storage from another; meta tensors have no address of data."""
    return int(tensor.untyped_storage()._cdata)
