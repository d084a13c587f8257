"""Lanes of copies on CUDA, on streams and events that are simulated: what may go wrong there, and that it does not.

Each hazard is one line of `offload.lanes` that could be missing. The lanes run as they are under many schedules; then
without that line, and the simulation has to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cuda_streams import Buffer, Gpu, Hazard, Schedule, Worker
from easyanimate_core.offload import lanes
from easyanimate_core.offload.lanes import CudaLane, StagedLane
from easyanimate_core.offload.ring import Ring

SIZES = (4, 3, 4, 2, 4)
SCHEDULES = [Schedule("early"), Schedule("late"), Schedule("late", first=1), *map(Schedule, range(24))]


class Waiting:
    """A block at home: its number in every cell."""

    def __init__(self, gpu: Gpu, number: int, *, pinned: bool, broken: bool = False) -> None:
        self.values = [number] * SIZES[number]
        self.pack: Any = SimpleNamespace(nbytes=len(self.values))
        self.pinned: Any = Buffer("pinned", list(self.values), gpu) if pinned else None
        self._broken = broken

    def copy_to(self, buffer: Any) -> None:
        if self._broken:
            raise OSError("the disk is gone")
        buffer.write(self.values)


def streamed(
    schedule: Schedule,
    patch: pytest.MonkeyPatch,
    *,
    staged: bool,
    slots: int = 2,
    order: list[int] | None = None,
    fails_at: int | None = None,
    broken: int | None = None,
    lockable: bool = True,
) -> None:
    """Run blocks through the real ring and lane; memory is used before the slots are made there, and afterwards."""
    gpu = Gpu(schedule)
    patch.setattr(lanes, "torch", gpu.torch)
    patch.setattr(lanes, "ThreadPoolExecutor", lambda *_, **__: Worker(gpu))
    patch.setattr(lanes, "pinned", lambda size: Buffer("pinned" if lockable else "pageable", [0] * size, gpu))
    homes: Any = [Waiting(gpu, number, pinned=not staged, broken=number == broken) for number in range(len(SIZES))]
    memory = [[0] * max(SIZES) for _ in range(slots)]
    for mark, cells in enumerate(memory):
        gpu.occupy(cells, 70 + mark)
    gpu.free += memory  # the host let go of it; the device has perhaps not begun
    make: Any = StagedLane if staged else CudaLane
    lane = make(homes, max(SIZES), slots, "cuda")
    ring = Ring([range(len(SIZES))], slots, lane)
    ring.prime(0)
    try:
        for step, block in enumerate(order or 3 * list(range(len(SIZES)))):
            try:
                slot = ring.enter(block)
                if step == fails_at:
                    raise KeyError("in the middle")
                gpu.compute(lane.slots[slot], homes[block].values)
            finally:
                ring.leave(block)
    finally:
        lane.close()
        for mark, cells in enumerate(memory):
            gpu.occupy(cells, 80 + mark)
        for stream in gpu.streams:
            stream.synchronize()


@pytest.mark.feature("C047")
@pytest.mark.parametrize("staged", [False, True], ids=["pinned", "from files"])
@pytest.mark.parametrize("slots", [2, 3])
def test_every_block_computes_with_its_own_weights(staged: bool, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for schedule in SCHEDULES:
        streamed(schedule, monkeypatch, staged=staged, slots=slots)


@pytest.mark.parametrize("staged", [False, True], ids=["pinned", "from files"])
def test_also_in_an_order_that_nobody_expected(staged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for schedule in SCHEDULES:
        streamed(schedule, monkeypatch, staged=staged, order=[0, 0, 1, 0, 4, 2, 3, 3, 1, 4, 0])


@pytest.mark.parametrize("staged", [False, True], ids=["pinned", "from files"])
def test_an_error_in_the_middle_leaves_no_copy_behind(staged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for schedule in SCHEDULES:
        with pytest.raises(KeyError, match="in the middle"):
            streamed(schedule, monkeypatch, staged=staged, fails_at=7)


def test_a_file_that_cannot_be_read_is_told_where_its_block_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for schedule in SCHEDULES:
        with pytest.raises(OSError, match="the disk is gone"):
            streamed(schedule, monkeypatch, staged=True, broken=3)


def nothing(*_: object) -> None:
    """Instead of a line that waits."""


def without_waiting_for_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("cuda_streams.Stream.wait_stream", nothing)


def without_waiting_for_arrival(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CudaLane, "await_slot", nothing)


def without_saying_that_a_slot_is_used(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CudaLane, "used", nothing)


def without_waiting_for_the_stage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CudaLane, "copied", nothing)


def without_waiting_at_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CudaLane, "close", nothing)


@pytest.mark.feature("C047")
@pytest.mark.parametrize(
    ("staged", "forget"),
    [
        (False, without_waiting_for_memory),
        (False, without_waiting_for_arrival),
        (False, without_saying_that_a_slot_is_used),
        (False, without_waiting_at_the_end),
        (True, without_waiting_for_memory),
        (True, without_waiting_for_arrival),
        (True, without_saying_that_a_slot_is_used),
        (True, without_waiting_for_the_stage),
        (True, without_waiting_at_the_end),
    ],
)
def test_the_simulation_finds_what_is_missing(
    staged: bool, forget: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch)
    with pytest.raises(Hazard):
        for schedule in SCHEDULES:
            streamed(schedule, monkeypatch, staged=staged)


def test_where_memory_cannot_be_pinned_the_host_waits_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    for schedule in SCHEDULES:
        streamed(schedule, monkeypatch, staged=True, lockable=False)
