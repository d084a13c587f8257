"""Which block is fetched when: a ring of a few slots, filled ahead of the computation. No tensors here.

The ring only gives orders to a lane. A lane of copy streams makes it fast, a lane of clocks (`timeline`) tells how fast
it would be, and the order of what they are told is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

__all__ = ["Lane", "Ring", "spread"]


class Lane(Protocol):
    """Fetches blocks into slots, beside the computation."""

    def fetch(self, block: int, slot: int) -> None:
        """Bring a block into a slot as soon as everything told to compute with that slot so far is done. Returns at
        once."""
        ...

    def await_slot(self, slot: int) -> None:
        """What is computed from here on finds in the slot what was fetched last."""
        ...

    def used(self, slot: int) -> None:
        """What was told to compute up to here uses the slot; nothing after it does, until it is fetched anew."""
        ...


class Ring:
    """Slots that blocks pass through in the order in which they run.

    The order is expected, not required: a block that was not foreseen is fetched when it is wanted, which takes time
    and is otherwise right.

    Args:
        tracks: runs of blocks by number, without those that stay on the device. After the last of a run its first
            one is expected: denoising runs the same blocks at every step.
        slots: how many blocks fit.
        lane: gets the orders.
    """

    def __init__(self, tracks: Sequence[Sequence[int]], slots: int, lane: Lane) -> None:
        self._next = {b: run[(i + 1) % len(run)] for run in tracks for i, b in enumerate(run)}
        self._held: list[int | None] = [None] * slots
        self._busy: int | None = None
        self._lane = lane

    def prime(self, block: int) -> None:
        """Begin to fetch this block and those after it."""
        self._ahead([block, *self._following(block)])

    def enter(self, block: int) -> int:
        """The block is about to run: the slot that it is in, for what is computed from here on."""
        if block not in self._held:
            self._fetch(block, keep=())
        slot = self._held.index(block)
        self._busy = slot
        self._ahead(self._following(block))
        self._lane.await_slot(slot)
        return slot

    def leave(self, block: int) -> None:
        """The block has run: its slot is free for the one that comes next."""
        if self._busy is None:
            return  # it could not even be fetched; that error is on its way
        self._lane.used(self._busy)
        self._busy = None
        self._ahead(self._following(block))

    def _following(self, block: int) -> list[int]:
        """The blocks that are expected next, as many as there are slots, each once."""
        found: list[int] = []
        while len(found) < len(self._held) and (block := self._next[block]) not in found:
            found.append(block)
        return found

    def _ahead(self, wanted: Sequence[int]) -> None:
        """Fetch what is expected into slots that hold nothing of it."""
        if self._busy is not None:
            wanted = [block for block in wanted if block != self._held[self._busy]][: len(self._held) - 1]
        for block in wanted[: len(self._held)]:
            if block not in self._held:
                self._fetch(block, keep=wanted)

    def _fetch(self, block: int, keep: Collection[int]) -> None:
        for slot, held in enumerate(self._held):
            if slot != self._busy and (held is None or held not in keep):
                self._held[slot] = block
                self._lane.fetch(block, slot)
                return


def spread(count: int, stay: int) -> tuple[int, ...]:
    """Positions of `stay` blocks among `count`, evenly spaced, so that every fetch has the same time to finish."""
    return tuple(((2 * index + 1) * count) // (2 * stay) for index in range(min(stay, count)))
