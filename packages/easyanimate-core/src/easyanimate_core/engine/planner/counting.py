"""What a computation takes, counted without doing it: it runs on the meta device, and every operation is watched.

Counted are the memory that lives at once, matrix and attention FLOP, kernels, and bytes that kernels read and write.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from easyanimate_core import kernels
from easyanimate_core.offload.blocks import find_tracks

__all__ = ["Counts", "count"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a computation takes.

    Attributes:
        peak: bytes that live at once, at most, besides weights and what was given.
        matmul: FLOP of matrix products and convolutions, two per multiply-add.
        attention: FLOP of attention.
        kernels: operations that read or write memory; views are none.
        products: those of them that are matrix products, convolutions or attention.
        moved: bytes that all others read and write.
    """

    peak: int = 0
    matmul: int = 0
    attention: int = 0
    kernels: int = 0
    products: int = 0
    moved: int = 0

    @property
    def flop(self) -> int:
        """All of it."""
        return self.matmul + self.attention

    def __add__(self, other: Counts) -> Counts:
        """One after the other."""
        peak = max(self.peak, other.peak)
        return Counts(peak, *(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)[1:]))


def count(run: Callable[[], Any], *modules: nn.Module, fused: bool = False) -> Counts:
    """Count what `run` does; everything in it is on the meta device.

    Args:
        run: computes with meta tensors; its result is dropped.
        modules: what computes in it. Of equal blocks with equal inputs only the first is run, the others are added.
        fused: count the kernels that a CUDA device would get, instead of the plain operations; plain ones are counted
            where a kernel does not take the arguments.
    """
    watch = _Watch()
    with ExitStack() as stack:
        stack.enter_context(kernels.use("triton" if fused else "reference"))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_repeated(modules, watch))
        stack.enter_context(watch)
        stack.enter_context(_Attention(watch))
        run()
    return watch.counts()


_FREE: Final = frozenset({"detach", "lift_fresh", "empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view"})


class _Watch(TorchDispatchMode):
    """Sees every operation, and when memory comes and goes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._live = self._peak = 0
        self._homes: dict[int, int] = {}
        self._sum = Counts()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not any(tensor.is_meta for tensor in _tensors(result)):
            return result  # small tables, made beside the device
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            if tensor.untyped_storage()._cdata not in given:  # a view lives in what it is a view of
                self._lives(tensor)
        self._add(func, args, kwargs, result)
        return result

    def _add(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        name = func.overloadpacket.__name__
        given, made = _tensors((args, kwargs)), _tensors(result)
        homes = {tensor.untyped_storage()._cdata for tensor in given}
        viewed = made and not func._schema.is_mutable and all(t.untyped_storage()._cdata in homes for t in made)
        if viewed or not made or name in _FREE:
            return
        if func.overloadpacket in flop_registry:
            flop = int(flop_registry[func.overloadpacket](*args, **kwargs, out_val=result))
            self.add(Counts(matmul=flop, kernels=1, products=1))
        elif name == "scaled_linear":
            self.add(Counts(matmul=2 * given[0].numel() * given[1].shape[0], kernels=1, products=1))
        elif name == "_addmm_activation":  # a bias, then the matrices
            self.add(Counts(matmul=2 * given[1].numel() * given[2].shape[-1], kernels=1, products=1))
        else:
            self.add(Counts(kernels=1, moved=sum(map(_bytes, [*given, *made]))))

    def _lives(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._homes:
            return
        size = storage.nbytes()
        self._live += size
        self._peak = max(self._peak, self._live)
        self._homes[key] = size
        weakref.finalize(storage, self._dies, key)

    def _dies(self, key: int) -> None:
        self._live -= self._homes.pop(key, 0)

    def add(self, counts: Counts) -> None:
        """Something was done."""
        self._sum = self._sum + counts

    def so_far(self) -> Counts:
        """All that was done."""
        return self._sum

    def counts(self) -> Counts:
        """All that was done, and the most that lived."""
        return replace(self._sum, peak=self._peak)


class _Attention(TorchFunctionMode):
    """Counts attention as one kernel: on the meta device torch would spell it out, scores and all."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = (*args, *(kwargs or {}).values())[:3]
        scores = q.shape[:-1].numel() * k.shape[-2]
        self._watch.add(Counts(attention=2 * scores * (q.shape[-1] + v.shape[-1]), kernels=1, products=1))
        # As cuDNN's and flash attention write it: laid out as the queries are.
        return torch.empty_like(q) if q.shape[-1] == v.shape[-1] else q.new_empty((*q.shape[:-1], v.shape[-1]))


@contextmanager
def _repeated(modules: Sequence[nn.Module], watch: _Watch) -> Iterator[None]:
    """Inside, a block that is like an earlier one, with inputs like its, is counted and not run."""
    done: dict[Any, tuple[Any, Counts]] = {}
    blocks = [block for module in modules for track in find_tracks(module) for block in track]

    def counted(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        kind = (type(block), tuple((name, p.shape, p.dtype) for name, p in block.named_parameters()))

        def run(*args: Any, **kwargs: Any) -> Any:
            key = (kind, str(tree_map(_look, (args, kwargs))))
            if key in done:
                shapes, counts = done[key]
                watch.add(counts)
                return tree_map(
                    lambda look: torch.empty(look[0], dtype=look[1], device="meta"), shapes, is_leaf=_is_look
                )
            before = watch.so_far()
            result = forward(*args, **kwargs)
            if all(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
                after = watch.so_far()
                added = [getattr(after, f.name) - getattr(before, f.name) for f in fields(Counts)[1:]]
                done[key] = (tree_map(_look, result), Counts(0, *added))
            return result

        return run

    for block in blocks:
        block.forward = counted(block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _look(leaf: Any) -> Any:
    """What of an argument decides the work."""
    return (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _is_look(leaf: Any) -> bool:
    return isinstance(leaf, tuple) and len(leaf) == 2 and isinstance(leaf[1], torch.dtype)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """What an operation reads or writes of a tensor; a value that is repeated by a stride of 0 is one."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 1]
    return torch.Size(sizes).numel() * tensor.element_size()
