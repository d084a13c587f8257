"""What comes and goes in a component: runs of blocks, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from easyanimate_core.offload.pack import tensors_of
from easyanimate_core.placing import HasBlocks, KeepsSteady

__all__ = ["Parts", "find_tracks", "parts_of", "size_of"]


@dataclass(frozen=True, slots=True)
class Parts:
    """A component, cut.

    Attributes:
        tracks: runs of blocks; inside a run, blocks are called in order.
        own: what comes and goes with each block, in the order of the tracks.
        rest: everything else: projections at both ends, embeddings, and what two blocks share.
    """

    tracks: tuple[tuple[nn.Module, ...], ...]
    own: tuple[tuple[Tensor, ...], ...]
    rest: tuple[Tensor, ...]

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """All blocks, track after track."""
        return tuple(block for track in self.tracks for block in track)


def size_of(tensors: Sequence[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def find_tracks(module: nn.Module) -> tuple[tuple[nn.Module, ...], ...]:
    """Runs of blocks: what the component says, else its topmost module lists.

    Lists of one entry, and lists that together hold less than a twentieth of the component, are not worth the hooks.
    """
    if isinstance(module, HasBlocks):
        return tuple(tuple(run) for run in module.streamed_blocks() if len(run) > 0)
    whole = size_of(tensors_of(module))
    found: list[tuple[nn.Module, ...]] = []
    waiting = [module]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, nn.ModuleList) and len(part) > 1:
            if size_of(tensors_of(part)) * 20 >= whole:
                found.append(tuple(part))
            continue
        waiting += part.children()
    return tuple(found)


def parts_of(module: nn.Module) -> Parts:
    """Cut a component. A tensor that two blocks share, or a block and the rest, belongs to the rest."""
    tracks = find_tracks(module)
    blocks = [block for track in tracks for block in track]
    counted: dict[int, int] = {}
    for block in blocks:
        for tensor in tensors_of(block):
            counted[id(tensor)] = counted.get(id(tensor), 0) + 1
    outside = {id(tensor) for tensor in _outside(module, {id(block) for block in blocks})}
    if isinstance(module, KeepsSteady):
        outside |= {id(tensor) for tensor in tensors_of(*module.steady_modules())}
    shared = frozenset(key for key, count in counted.items() if count > 1 or key in outside)
    own = tuple(tuple(tensors_of(block, without=shared)) for block in blocks)
    mine = frozenset(id(tensor) for tensors in own for tensor in tensors)
    return Parts(tracks, own, tuple(tensors_of(module, without=mine)))


def _outside(module: nn.Module, inside: set[int]) -> list[Tensor]:
    """Tensors that modules hold which are no part of a block."""
    found: list[Tensor] = []
    waiting = [module]
    while waiting:
        part = waiting.pop()
        if id(part) in inside:
            continue
        found += [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        waiting += part.children()
    return found
