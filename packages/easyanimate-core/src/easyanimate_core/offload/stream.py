"""Blocks stream through a ring on the device: block i + 1 is fetched while block i runs.

Weights are packed in pinned main memory, one buffer per block, and one copy brings a block; or they stay in the files
that they were read from, and are packed on their way. None goes back.
Blocks that stay on the device, as many as a budget allows, are spread evenly, so that every fetch has equally long.
The output is that of `resident`, bit by bit: the same numbers, in other places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from easyanimate_core.offload.blocks import parts_of, size_of
from easyanimate_core.offload.by_role import ByRole, Ledger
from easyanimate_core.offload.homes import Home, Homes
from easyanimate_core.offload.lanes import OpenLane, open_lane
from easyanimate_core.offload.options import StreamOptions
from easyanimate_core.offload.parts import Unit
from easyanimate_core.offload.ring import Ring, spread
from easyanimate_core.placing import Footprint, Keep

if TYPE_CHECKING:
    from easyanimate_core.interfaces import Toolbox

__all__ = ["Stream", "staying"]

_OpenLanes = Callable[[Sequence[Home], int, torch.device], OpenLane]


class Stream(ByRole["_Streamed"]):
    """Fetches blocks ahead of the computation; see the module.

    Args:
        options: budget, slots, source.
        lanes: makes what fetches; for tests.
    """

    def __init__(self, options: StreamOptions | None = None, *, lanes: _OpenLanes = open_lane) -> None:
        super().__init__()
        self.options = options or StreamOptions()
        self._lanes = lanes
        self._homes: Homes | None = None

    def attach(self, toolbox: Toolbox, device: torch.device) -> None:
        """Pack the modules' weights, block by block; the device holds none until they are used.

        Raises:
            ExecutionError: the file cannot be written.
        """
        for role, module in toolbox.modules().items():
            if isinstance(module, nn.Module) and role not in self.components:
                self.take(role, module, device)

    def take(self, role: str, module: nn.Module, device: torch.device) -> None:
        """Pack one component, before the next one is read; see `placing.TakesParts`.

        Raises:
            ExecutionError: the file cannot be written.
        """
        if not self.components:
            self.ledger = Ledger()
        self.components[role] = _Streamed(module, self.options, self._opened(device), device, self.ledger, self._lanes)

    def keeper(self, device: torch.device) -> Keep | None:
        """Where weights wait from the moment they are read; see `placing.KeepsInFiles`.

        Raises:
            ExecutionError: there can be no files.
        """
        return self._opened(device).keep if self.options.source == "disk" else None

    def _opened(self, device: torch.device) -> Homes:
        if self._homes is None:
            on_disk = self.options.source == "disk"
            self._homes = Homes(pinned=device.type == "cuda", files=on_disk, folder=self.options.folder)
        return self._homes

    def detach(self) -> None:
        """Give the modules back, without hooks: in main memory, or in the files where they waited. A file that was
        written is gone with the last tensor in it."""
        super().detach()
        if self._homes is not None:
            self._homes.close()
            self._homes = None

    def blocks_staying(self) -> dict[str, tuple[int, int]]:
        """By role: blocks that stay while the component runs, and blocks in all; see `placing.LetsBlocksStay`."""
        return {role: component.staying for role, component in self.components.items()}

    def footprint(self, role: str, module: nn.Module) -> Footprint:
        """The rest, the ring, and the blocks that stay; see `placing.Foretells`.

        Files at most, once all is read: what is stored as it is computed with stays where it was read. While a
        component is read that is converted and then narrowed, its files are as large as before the narrowing.
        """
        parts = parts_of(module)
        sizes, rest = [size_of(own) for own in parts.own], size_of(parts.rest)
        stay = staying(sizes, rest, self.options)
        streamed = [size for block, size in enumerate(sizes) if block not in stay]
        ring = self.options.slots * max(streamed, default=0)
        waiting = rest + sum(sizes)
        in_file = self.options.source == "disk"
        return Footprint(
            idle=0,
            used=rest + ring + sum(sizes[block] for block in stay),
            host=0 if in_file else waiting,
            disk=waiting if in_file else 0,
            moved=sum(streamed),
            pieces=len(streamed),
            ahead=True,
        )


def staying(sizes: Sequence[int], rest: int, options: StreamOptions) -> frozenset[int]:
    """Blocks that stay on the device: all that fit into the budget beside the rest and the ring, evenly spread.

    Args:
        sizes: bytes of each block.
        rest: bytes of what is no block.
        options: the budget and the ring. A budget smaller than rest and ring is exceeded: nothing would run.
    """
    if options.budget is None or not sizes:
        return frozenset()
    if rest + sum(sizes) <= options.budget:
        return frozenset(range(len(sizes)))
    room = options.budget - rest - options.slots * max(sizes)
    count = len(sizes)
    while count > 0:
        chosen = spread(len(sizes), count)
        if sum(sizes[block] for block in chosen) <= room:
            return frozenset(chosen)
        count -= 1
    return frozenset()


class _Streamed:
    """One component: the rest and the blocks that stay while it is used, and the ring for all others."""

    def __init__(
        self,
        module: nn.Module,
        options: StreamOptions,
        homes: Homes,
        device: torch.device,
        ledger: Ledger,
        lanes: _OpenLanes,
    ) -> None:
        parts = parts_of(module)
        sizes = [size_of(own) for own in parts.own]
        stay = staying(sizes, size_of(parts.rest), options)
        self.staying = len(stay), len(sizes)
        steady = [*parts.rest, *(tensor for block in stay for tensor in parts.own[block])]
        self._steady = Unit(steady, homes, device, ledger)
        self._device, self._ledger, self._lanes, self._slots = device, ledger, lanes, options.slots
        number = 0
        self._homes: dict[int, Home] = {}
        self._tracks: list[list[int]] = []
        self._hooks: list[RemovableHandle] = []
        for track in parts.tracks:
            numbers = [at for at in range(number, number + len(track)) if at not in stay and parts.own[at]]
            for at in numbers:
                self._homes[at] = homes.make(parts.own[at])
                self._hooks += self._hooked(track[at - number], at)
            self._tracks += [numbers] if numbers else []
            number += len(track)
        self._order = {block: index for index, block in enumerate(self._homes)}
        self._users = 0
        self._lane: OpenLane | None = None
        self._ring: Ring | None = None

    def _hooked(self, block: nn.Module, number: int) -> list[RemovableHandle]:
        def enter(module: nn.Module, given: tuple[Any, ...]) -> None:
            if self._ring is not None and self._lane is not None:
                slot = self._ring.enter(self._order[number])
                self._homes[number].pack.bind(self._lane.slots[slot])

        def leave(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            if self._ring is not None:
                self._homes[number].take_back()
                self._ring.leave(self._order[number])

        return [block.register_forward_pre_hook(enter), block.register_forward_hook(leave, always_call=True)]

    def enter(self) -> None:
        """The component is used from here on: bring what stays, open the ring."""
        self._users += 1
        if self._users > 1:
            return
        self._steady.bring()
        if self._homes:
            self._lane = self._lanes(list(self._homes.values()), self._slots, self._device)
            self._ledger.add(self._ring_bytes())
            tracks = [[self._order[block] for block in track] for track in self._tracks]
            self._ring = Ring(tracks, self._slots, self._lane)
            if len(tracks) == 1:
                self._ring.prime(tracks[0][0])

    def leave(self) -> None:
        """It is used no longer, once this has been said as often as `enter`."""
        self._users -= 1
        if self._users:
            return
        self._steady.let_go()
        if self._lane is not None:
            self._lane.close()
            self._ledger.add(-self._ring_bytes())
            self._lane = self._ring = None

    def _ring_bytes(self) -> int:
        return self._slots * max(home.pack.nbytes for home in self._homes.values())

    def give_back(self) -> None:
        """Take the hooks away and leave the weights as they were found."""
        for hook in self._hooks:
            hook.remove()
        self._steady.give_back()
        while self._homes:
            self._homes.popitem()[1].give_back()
