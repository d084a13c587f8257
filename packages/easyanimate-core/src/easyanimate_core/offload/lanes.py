"""Lanes that really fetch: copy streams and events on CUDA, a thread on the CPU, and a thread in front for files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from easyanimate_core.offload.homes import Home, pinned
from easyanimate_core.offload.ring import Lane

__all__ = ["CudaLane", "OpenLane", "StagedLane", "ThreadLane", "open_lane"]


class OpenLane(Lane, Protocol):
    """A lane that holds memory until it is closed.

    Attributes:
        slots: buffers `(bytes,)` of uint8 on the device.
    """

    slots: Sequence[Tensor]

    def close(self) -> None:
        """Wait for what was begun, and let go of the slots."""
        ...


class ThreadLane:
    """Fetches with one thread, beside a computation that is done when it returns: the CPU.

    Args:
        homes: where every block waits.
        size: bytes of a slot.
        slots: how many.
    """

    def __init__(self, homes: Sequence[Home], size: int, slots: int) -> None:
        self.slots: Sequence[Tensor] = _buffers(size, slots, torch.device("cpu"))
        self._homes = homes
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="easyanimate-stream")
        self._coming: list[Future[None] | None] = [None] * slots

    def fetch(self, block: int, slot: int) -> None:
        """See `Lane`. One worker: fetches never overtake each other."""
        self._coming[slot] = self._worker.submit(self._homes[block].copy_to, self.slots[slot])

    def await_slot(self, slot: int) -> None:
        """See `Lane`.

        Raises:
            OSError: the file cannot be read.
        """
        coming = self._coming[slot]
        if coming is not None:
            coming.result()
            self._coming[slot] = None

    def used(self, slot: int) -> None:
        """See `Lane`; the computation is over when this is called."""

    def close(self) -> None:
        """Wait for the worker, and let go of the slots."""
        self._worker.shutdown(cancel_futures=True)
        self.slots = []


class CudaLane:
    """Fetches on a copy stream of its own; the host never waits, the streams do.

    Args:
        homes: where every block waits: in pinned memory, unless someone else says from where it is copied.
        size: bytes of a slot.
        slots: how many.
        device: of the slots.
    """

    def __init__(self, homes: Sequence[Home], size: int, slots: int, device: torch.device) -> None:
        self.slots: Sequence[Tensor] = _buffers(size, slots, device)
        self._homes, self._device = homes, device
        self._stream = torch.cuda.Stream(device)
        # The slots may lie where something still computes that was told so before.
        self._stream.wait_stream(torch.cuda.current_stream(device))
        self._arrived = [torch.cuda.Event() for _ in range(slots)]
        self._done: list[torch.cuda.Event | None] = [None] * slots

    def fetch(self, block: int, slot: int) -> None:
        """See `Lane`."""
        source = self._homes[block].pinned
        assert source is not None
        self.copy_from(source, slot)

    def copy_from(self, source: Tensor, slot: int) -> None:
        """Bring a buffer in main memory into a slot, after what was last told to use it."""
        with torch.cuda.stream(self._stream):
            if (done := self._done[slot]) is not None:
                self._stream.wait_event(done)
            self.slots[slot][: source.numel()].copy_(source, non_blocking=source.is_pinned())
            self._arrived[slot].record(self._stream)

    def await_slot(self, slot: int) -> None:
        """See `Lane`."""
        torch.cuda.current_stream(self._device).wait_event(self._arrived[slot])

    def used(self, slot: int) -> None:
        """See `Lane`."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._done[slot] = event

    def copied(self, slot: int) -> None:
        """Let the host wait until what was last told to come into the slot has left its home."""
        self._arrived[slot].synchronize()

    def close(self) -> None:
        """Wait for both streams, and let go of the slots."""
        self._stream.synchronize()
        torch.cuda.current_stream(self._device).synchronize()
        self.slots = []


class StagedLane:
    """Fetches from files to CUDA: a thread reads into pinned memory, a copy stream takes it from there.

    Args:
        homes: where every block waits.
        size: bytes of a slot.
        slots: how many, here and there.
        device: of the slots.
    """

    def __init__(self, homes: Sequence[Home], size: int, slots: int, device: torch.device) -> None:
        self._homes = homes
        self._cuda = CudaLane(homes, size, slots, device)
        self.slots = self._cuda.slots
        with torch.inference_mode(False):  # as in `_buffers`
            self._stages = [pinned(size) for _ in range(slots)]
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="easyanimate-stream")
        self._coming: list[Future[None] | None] = [None] * slots

    def fetch(self, block: int, slot: int) -> None:
        """See `Lane`."""
        self._coming[slot] = self._worker.submit(self._bring, block, slot)

    def _bring(self, block: int, slot: int) -> None:
        self._cuda.copied(slot)
        home = self._homes[block]
        home.copy_to(self._stages[slot])
        self._cuda.copy_from(self._stages[slot][: home.pack.nbytes], slot)

    def await_slot(self, slot: int) -> None:
        """See `Lane`; the host waits for the file, the stream for the copy."""
        coming = self._coming[slot]
        if coming is not None:
            coming.result()
            self._coming[slot] = None
        self._cuda.await_slot(slot)

    def used(self, slot: int) -> None:
        """See `Lane`."""
        self._cuda.used(slot)

    def close(self) -> None:
        """Wait for the worker and the streams, and let go of all buffers."""
        self._worker.shutdown(cancel_futures=True)
        self._cuda.close()
        self.slots, self._stages = [], []


def open_lane(homes: Sequence[Home], slots: int, device: torch.device) -> OpenLane:
    """The lane for these homes and this device, with slots of the largest home's size."""
    size = max(home.pack.nbytes for home in homes)
    if device.type != "cuda":
        if device.type == "cpu":
            return ThreadLane(homes, size, slots)
        return _PlainLane(homes, size, slots, device)
    make: Callable[..., OpenLane] = CudaLane if all(home.pinned is not None for home in homes) else StagedLane
    return make(homes, size, slots, device)


def _buffers(size: int, count: int, device: torch.device) -> list[Tensor]:
    """Buffers `(size,)` of uint8 that any thread may write: what is made in inference mode, only threads in it may."""
    with torch.inference_mode(False):
        return [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(count)]


class _PlainLane:
    """Fetches when told to, on devices without streams of their own: everything is done in order."""

    def __init__(self, homes: Sequence[Home], size: int, slots: int, device: torch.device) -> None:
        self.slots: Sequence[Tensor] = _buffers(size, slots, device)
        self._homes = homes

    def fetch(self, block: int, slot: int) -> None:
        self._homes[block].copy_to(self.slots[slot])

    def await_slot(self, slot: int) -> None:
        pass

    def used(self, slot: int) -> None:
        pass

    def close(self) -> None:
        self.slots = []
