"""What streaming would cost: the ring on a lane made of two clocks, one that copies and one that computes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from easyanimate_core.offload.ring import Ring

__all__ = ["Span", "Timeline", "simulate"]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that takes time: `copy` or `compute` of a block, from `begin` to `end` in seconds."""

    kind: Literal["copy", "compute"]
    block: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened when.

    Attributes:
        spans: in the order of the orders.
        seconds: until the last block had run.
        computing: seconds of computation alone: what it would take with all blocks on the device.
        moved: bytes that were copied.
    """

    spans: tuple[Span, ...]
    seconds: float
    computing: float
    moved: int

    @property
    def slowdown(self) -> float:
        """How many times longer than with all blocks on the device, 1 when copies hide behind the computation."""
        return self.seconds / self.computing if self.computing else 1.0


class _Clocks:
    """A lane whose copies take `bytes / bandwidth` seconds."""

    def __init__(self, sizes: Sequence[int], slots: int, bandwidth: float, latency: float) -> None:
        self._sizes, self._bandwidth, self._latency = sizes, bandwidth, latency
        self._free = [0.0] * slots
        self._there = [0.0] * slots
        self._copying = 0.0
        self.now = 0.0
        self.spans: list[Span] = []
        self.moved = 0

    def fetch(self, block: int, slot: int) -> None:
        begin = max(self._copying, self._free[slot])
        self._copying = begin + self._latency + self._sizes[block] / self._bandwidth
        self._there[slot] = self._copying
        self.moved += self._sizes[block]
        self.spans.append(Span("copy", block, begin, self._copying))

    def await_slot(self, slot: int) -> None:
        self.now = max(self.now, self._there[slot])

    def used(self, slot: int) -> None:
        self._free[slot] = self.now

    def compute(self, block: int, seconds: float) -> None:
        self.spans.append(Span("compute", block, self.now, self.now + seconds))
        self.now += seconds


def simulate(
    sizes: Sequence[int],
    seconds: Sequence[float],
    *,
    bandwidth: float,
    stay: Collection[int] = (),
    slots: int = 2,
    passes: int = 1,
    latency: float = 10e-6,
) -> Timeline:
    """Run blocks in order, a few times over, with the orders that the real engine gives.

    Args:
        sizes: bytes of each block.
        seconds: computing time of each block.
        bandwidth: of the copies, in bytes per second.
        stay: blocks that are on the device all the time.
        slots: of the ring.
        passes: how often all blocks run.
        latency: seconds that every copy takes besides.
    """
    lane = _Clocks(sizes, slots, bandwidth, latency)
    streamed = [block for block in range(len(sizes)) if block not in stay]
    ring = Ring([streamed] if streamed else [], slots, lane)
    if streamed:
        ring.prime(streamed[0])
    for _ in range(passes):
        for block, duration in enumerate(seconds):
            if block in stay:
                lane.compute(block, duration)
                continue
            ring.enter(block)
            lane.compute(block, duration)
            ring.leave(block)
    return Timeline(tuple(lane.spans), lane.now, passes * sum(seconds), lane.moved)
