"""Tensors that come and go together, laid into one buffer: one copy brings them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["Pack", "tensors_of"]

_ALIGNMENT: Final = 256  # bytes; what a device's allocator gives, so that kernels find what they are used to


@dataclass(frozen=True, slots=True)
class _Piece:
    """One tensor's place: the object that layers hold, and where its numbers are."""

    tensor: Tensor
    offset: int
    nbytes: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, buffer: Tensor) -> Tensor:
        """Its numbers in a buffer `(bytes,)` of uint8."""
        flat = buffer[self.offset : self.offset + self.nbytes].view(self.dtype)
        return flat.as_strided(self.size, self.stride, flat.storage_offset())


class Pack:
    """Parameters and buffers that come and go together.

    The objects stay the same, so layers, optimisers and state dicts never notice: only where their numbers are
    changes.

    Attributes:
        nbytes: length of a buffer that holds them.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        pieces, offset = [], 0
        for tensor in tensors:
            nbytes = tensor.numel() * tensor.element_size()
            pieces.append(_Piece(tensor, offset, nbytes, tensor.dtype, tuple(tensor.shape), _dense_stride(tensor)))
            offset += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        self._pieces = tuple(pieces)
        self.nbytes = offset

    def fill(self, buffer: Tensor) -> None:
        """Write the tensors into a buffer and let them live there, one by one: their old memory is free at once."""
        for piece in self._pieces:
            place = piece.view(buffer)
            place.copy_(piece.tensor.detach())
            piece.tensor.data = place

    def bind(self, buffer: Tensor) -> None:
        """Let the tensors live in a buffer that holds their numbers already."""
        for piece in self._pieces:
            piece.tensor.data = piece.view(buffer)

    def values(self) -> tuple[Tensor, ...]:
        """Where the tensors' numbers are now."""
        return tuple(piece.tensor.detach() for piece in self._pieces)

    def gather(self, values: Sequence[Tensor], buffer: Tensor) -> None:
        """Copy what `values` gave into a buffer, wherever the tensors live meanwhile."""
        for piece, value in zip(self._pieces, values, strict=True):
            piece.view(buffer).copy_(value)

    def restore(self, values: Sequence[Tensor]) -> None:
        """Let the tensors live where they did when `values` was called."""
        for piece, value in zip(self._pieces, values, strict=True):
            piece.tensor.data = value

    def unbind(self) -> None:
        """Give every tensor memory of its own again, where it is."""
        for piece in self._pieces:
            piece.tensor.data = piece.tensor.detach().clone(memory_format=torch.preserve_format)


def tensors_of(*modules: nn.Module, without: frozenset[int] = frozenset()) -> list[Tensor]:
    """Parameters and buffers of modules, each once, in order; not those whose `id` is in `without`."""
    found: dict[int, Tensor] = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in without and tensor.numel():
                found.setdefault(id(tensor), tensor)
    return list(found.values())


def _dense_stride(tensor: Tensor) -> tuple[int, ...]:
    """The tensor's own strides where its numbers fill its memory (channels last, for example), else plain ones."""
    like = torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format)
    return tuple(like.stride())
