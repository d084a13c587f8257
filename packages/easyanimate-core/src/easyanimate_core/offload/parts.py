"""Placements that bring weights when they are needed: `model`, `group` and `sequential`.

Each is a way to cut a component into *units*; what brings a unit and lets it go again is the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from easyanimate_core.offload.blocks import parts_of, size_of
from easyanimate_core.offload.by_role import ByRole, Ledger
from easyanimate_core.offload.homes import Homes
from easyanimate_core.offload.options import GroupOptions, SequentialOptions
from easyanimate_core.offload.pack import tensors_of
from easyanimate_core.placing import Footprint

if TYPE_CHECKING:
    from easyanimate_core.interfaces import Toolbox

__all__ = ["Group", "Model", "Sequential", "Unit"]

_CHUNK: Final = 1 << 29


class Unit:
    """Weights that come and go together.

    Args:
        tensors: parameters and buffers; in memory they are laid into buffers of some 512 MiB: larger ones would waste
            what systems round pinned memory up to.
        homes: where they wait.
        device: where they are computed with.
        ledger: counts.
    """

    def __init__(self, tensors: Sequence[Tensor], homes: Homes, device: torch.device, ledger: Ledger) -> None:
        self._homes = [homes.make(chunk) for chunk in _chunks(tensors)]
        self._device, self._ledger = device, ledger
        self.nbytes = sum(home.pack.nbytes for home in self._homes)
        self.there = False

    def bring(self) -> None:
        """Copy the weights to the device, unless they are there."""
        if not self.there:
            for home in self._homes:
                home.pack.bind(home.on(self._device))
            self._ledger.add(self.nbytes)
            self.there = True

    def let_go(self) -> None:
        """Let the weights live at home again."""
        if self.there:
            for home in self._homes:
                home.take_back()
            self._ledger.add(-self.nbytes)
            self.there = False

    def give_back(self) -> None:
        """Leave every tensor as it was found; of the homes, each is gone before the next tensors get memory."""
        self.let_go()
        while self._homes:
            self._homes.pop().give_back()


def _chunks(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in order, as many at a time as fit into a chunk."""
    chunk: list[Tensor] = []
    size = 0
    for tensor in tensors:
        nbytes = tensor.numel() * tensor.element_size()
        if chunk and size + nbytes > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(tensor)
        size += nbytes
    if chunk:
        yield chunk


class _Component:
    """One module under a strategy's care: what is there while it is used, and what comes and goes meanwhile."""

    def __init__(self, while_used: Unit, units: Sequence[tuple[Unit, Sequence[nn.Module]]], keep: bool) -> None:
        self._while_used, self._units, self._keep = while_used, [unit for unit, _ in units], keep
        self._users = 0
        self._hooks: list[RemovableHandle] = []
        for unit, modules in units:
            for module in modules:
                self._hooks.append(module.register_forward_pre_hook(self._bringing(unit)))
                if not keep:
                    self._hooks.append(module.register_forward_hook(_letting_go(unit), always_call=True))

    def _bringing(self, unit: Unit) -> Any:
        def bring(module: nn.Module, given: tuple[Any, ...]) -> None:
            if self._keep and not unit.there:
                for other in self._units:
                    other.let_go()
            unit.bring()

        return bring

    def enter(self) -> None:
        """The component is used from here on; may be said several times."""
        self._users += 1
        if self._users == 1:
            self._while_used.bring()

    def leave(self) -> None:
        """It is used no longer, once this has been said as often as `enter`."""
        self._users -= 1
        if self._users == 0:
            for unit in self._all():
                unit.let_go()

    def give_back(self) -> None:
        """Take the hooks away and leave the weights as they were found."""
        for hook in self._hooks:
            hook.remove()
        for unit in self._all():
            unit.give_back()

    def _all(self) -> list[Unit]:
        return [self._while_used, *self._units]


def _letting_go(unit: Unit) -> Any:
    def let_go(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        unit.let_go()

    return let_go


class _Brings(ByRole[_Component]):
    """What the three strategies share: each cuts a component in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self._homes = Homes()

    def attach(self, toolbox: Toolbox, device: torch.device) -> None:
        """Move the modules' weights into buffers in main memory; the device holds none until they are used."""
        self._homes, self.ledger = Homes(pinned=device.type == "cuda"), Ledger()
        for role, module in toolbox.modules().items():
            if isinstance(module, nn.Module):
                self.components[role] = self._cut(role, module, device)

    @abstractmethod
    def _cut(self, role: str, module: nn.Module, device: torch.device) -> _Component:
        """The component in units."""

    def _unit(self, tensors: Sequence[Tensor], device: torch.device) -> Unit:
        return Unit(tensors, self._homes, device, self.ledger)


class Model(_Brings):
    """Brings a component as a whole while it is used: text encoder, then denoiser, then VAE."""

    def _cut(self, role: str, module: nn.Module, device: torch.device) -> _Component:
        return _Component(self._unit(tensors_of(module), device), (), keep=True)

    def footprint(self, role: str, module: nn.Module) -> Footprint:
        """All of it, while it is used; see `placing.Foretells`."""
        size = size_of(tensors_of(module))
        return Footprint(idle=0, used=size, host=size)


class Group(_Brings):
    """Brings a few blocks at a time, when the first of them runs, and lets the ones before go."""

    def __init__(self, options: GroupOptions | None = None) -> None:
        super().__init__()
        self.options = options or GroupOptions()

    def _cut(self, role: str, module: nn.Module, device: torch.device) -> _Component:
        parts = parts_of(module)
        units = []
        for at, blocks in self._groups(parts.tracks):
            tensors = [tensor for own in parts.own[at : at + len(blocks)] for tensor in own]
            units.append((self._unit(tensors, device), blocks))
        return _Component(self._unit(parts.rest, device), units, keep=True)

    def _groups(self, tracks: Sequence[Sequence[nn.Module]]) -> Iterator[tuple[int, Sequence[nn.Module]]]:
        """Blocks that come together, and the number of the first of them among all."""
        first = 0
        for track in tracks:
            for at in range(0, len(track), self.options.blocks):
                yield first + at, track[at : at + self.options.blocks]
            first += len(track)

    def footprint(self, role: str, module: nn.Module) -> Footprint:
        """The rest and the largest group; see `placing.Foretells`."""
        parts = parts_of(module)
        sizes = [sum(map(size_of, parts.own[at : at + len(run)])) for at, run in self._groups(parts.tracks)]
        rest = size_of(parts.rest)
        return Footprint(0, rest + max(sizes, default=0), host=rest + sum(sizes), moved=sum(sizes), pieces=len(sizes))


class Sequential(_Brings):
    """Brings every linear layer and convolution when it runs, and lets it go right after: the least memory, slowly.

    Norms, embeddings and loose parameters stay on the device while their component is used: they are small, and what
    places token ids asks an embedding where it is.
    """

    def __init__(self, options: SequentialOptions | None = None) -> None:
        super().__init__()
        self.options = options or SequentialOptions()

    def _cut(self, role: str, module: nn.Module, device: torch.device) -> _Component:
        leaves = [] if self._whole(role, module) else _heavy(module)
        units = [(self._unit(tensors_of(leaf), device), (leaf,)) for leaf in leaves]
        mine = frozenset(id(tensor) for leaf in leaves for tensor in tensors_of(leaf))
        return _Component(self._unit(tensors_of(module, without=mine), device), units, keep=False)

    def _whole(self, role: str, module: nn.Module) -> bool:
        return bool({role, role.split("_")[0], type(module).__name__} & set(self.options.whole))

    def footprint(self, role: str, module: nn.Module) -> Footprint:
        """The rest and the largest layer; see `placing.Foretells`."""
        size = size_of(tensors_of(module))
        if self._whole(role, module):
            return Footprint(idle=0, used=size, host=size)
        layers = [size_of(tensors_of(leaf)) for leaf in _heavy(module)]
        used = size - sum(layers) + max(layers, default=0)
        return Footprint(0, used, host=size, moved=sum(layers), pieces=len(layers))


def _heavy(module: nn.Module) -> list[nn.Module]:
    """Linear layers and convolutions that own their weights alone."""
    found = [m for m in module.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    uses: dict[int, int] = {}
    for part in module.modules():
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    return [leaf for leaf in found if tensors_of(leaf) and all(uses[id(tensor)] == 1 for tensor in tensors_of(leaf))]
