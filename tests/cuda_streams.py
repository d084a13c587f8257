"""CUDA's streams, events, copies and caching allocator, simulated: what a lane of copies may and may not rely on.

Work waits on its stream until it is its turn, and takes time: it has a beginning and an end, and other streams go on
between them. A `Schedule` decides who goes on, so the same orders can be carried out as early, as late and as mixed as
CUDA allows. Every wrong order shows, because everything has contents: work that reads, reads twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal


class Hazard(AssertionError):
    """Something was read or written while someone else used it."""


@dataclass(eq=False)
class Buffer:
    """Memory of some cells, of a kind; slices share it."""

    kind: Literal["device", "pinned", "pageable"]
    cells: list[int]
    gpu: Gpu
    length: int = -1

    def numel(self) -> int:
        return len(self.cells) if self.length < 0 else self.length

    def __getitem__(self, part: slice) -> Buffer:
        return Buffer(self.kind, self.cells, self.gpu, len(range(*part.indices(self.numel()))))

    def values(self) -> list[int]:
        return self.cells[: self.numel()]

    def write(self, values: list[int]) -> None:
        self.cells[: len(values)] = values

    def is_pinned(self) -> bool:
        return self.kind == "pinned"

    def copy_(self, source: Buffer, *, non_blocking: bool = False) -> None:
        if self.kind != "device":
            self.write(source.values())  # the host does it, here and now
            return
        if non_blocking and source.kind == "pageable":
            raise Hazard("a copy that does not block reads memory that may move")
        seen: list[list[int]] = []

        def end() -> None:
            if source.values() != seen[0]:
                raise Hazard("what is being copied was overwritten")
            self.write(seen[0])

        self.gpu.current().push(lambda: seen.append(source.values()), end)
        self.gpu.tick()
        if not non_blocking:
            self.gpu.current().synchronize()


@dataclass(eq=False)
class Work:
    begin: Callable[[], object]
    end: Callable[[], object]
    may_begin: Callable[[], bool] = lambda: True
    begun: bool = False
    done: bool = False


@dataclass(eq=False)
class Stream:
    gpu: Gpu
    queue: list[Work] = field(default_factory=list)

    def push(self, begin: Callable[[], object], end: Callable[[], object], **more: Any) -> Work:
        self.queue.append(Work(begin, end, **more))
        return self.queue[-1]

    def wait_event(self, event: Event) -> None:
        if (last := event.last) is not None:  # CUDA: an event that was never recorded is not waited for
            self.push(lambda: None, lambda: None, may_begin=lambda: last.done)
        self.gpu.tick()

    def wait_stream(self, other: Stream) -> None:
        event = Event(self.gpu)
        event.record(other)
        self.wait_event(event)

    def synchronize(self) -> None:
        while self.queue:
            self.gpu.step()

    def step(self) -> bool:
        """Half of the next work, if its turn has come."""
        if not self.queue or not self.queue[0].may_begin():
            return False
        work = self.queue[0]
        if not work.begun:
            work.begin()
            work.begun = True
        else:
            work.end()
            work.done = True
            self.queue.pop(0)
        return True


@dataclass(eq=False)
class Event:
    gpu: Gpu
    last: Work | None = None

    def record(self, stream: Stream) -> None:
        self.last = stream.push(lambda: None, lambda: None)
        self.gpu.tick()

    def synchronize(self) -> None:
        while self.last is not None and not self.last.done:
            self.gpu.step()


class Schedule:
    """Who goes on, and how far between two orders of the host.

    Args:
        pace: `early`: as far as possible after every order; `late`: only when the host waits; a number: at random.
        first: the stream that goes on when several can: 0 is the one that computes.
    """

    def __init__(self, pace: Literal["early", "late"] | int, first: int = 0) -> None:
        self._pace, self._first = pace, first
        self._dice = random.Random(pace if isinstance(pace, int) else 0)

    def order(self, streams: list[Stream]) -> list[Stream]:
        if isinstance(self._pace, int):
            return self._dice.sample(streams, len(streams))
        return streams if self._first == 0 else streams[::-1]

    def steps(self) -> int:
        """Between two orders of the host."""
        return {"early": 10**6, "late": 0}.get(self._pace, self._dice.randrange(4))  # type: ignore[call-overload]

    def soon(self) -> bool:
        """Whether a thread that got an order carries it out before the one that gave it goes on."""
        return self._pace == "early" or (self._pace != "late" and self._dice.random() < 0.5)


class Gpu:
    """A device, its streams, and what `torch` and `torch.cuda` would offer of it."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.streams = [Stream(self)]
        self._threads = {"main": [self.streams[0]], "worker": [self.streams[0]]}
        self.thread = "main"
        self.free: list[list[int]] = []
        cuda = SimpleNamespace(
            Stream=lambda device: self._stream(),
            Event=lambda: Event(self),
            stream=self._using,
            current_stream=lambda device: self.current(),
        )
        self.torch = SimpleNamespace(cuda=cuda, empty=self._empty, uint8=None, inference_mode=nullcontext)

    def _stream(self) -> Stream:
        self.streams.append(Stream(self))
        return self.streams[-1]

    @contextmanager
    def _using(self, stream: Stream) -> Iterator[None]:
        self._threads[self.thread].append(stream)
        yield
        self._threads[self.thread].pop()

    def current(self) -> Stream:
        """Of the thread that asks."""
        return self._threads[self.thread][-1]

    def _empty(self, size: int, *, dtype: None, device: object) -> Buffer:
        # As torch's allocator: what was given back may be had again at once, in the order of the computing stream.
        return Buffer("device", self.free.pop() if self.free else [0] * size, self)

    def tick(self) -> None:
        """The device goes on, as far as the schedule lets it, before the host does."""
        for _ in range(self.schedule.steps()):
            if not any(stream.step() for stream in self.schedule.order(self.streams)):
                return

    def step(self) -> None:
        """The host waits: something has to go on."""
        if not any(stream.step() for stream in self.schedule.order(self.streams)):
            raise Hazard("nothing can go on")

    def compute(self, buffer: Buffer, wanted: list[int]) -> None:
        """Work of the computing stream that reads a buffer from its beginning to its end."""

        def look() -> None:
            if buffer.values()[: len(wanted)] != wanted:
                raise Hazard(f"{buffer.values()} where {wanted} should be")

        self.current().push(look, look)
        self.tick()

    def occupy(self, cells: list[int], mark: int) -> None:
        """Work of the computing stream that fills memory, and finds it unchanged at its end."""

        def begin() -> None:
            cells[:] = [mark] * len(cells)

        def end() -> None:
            if cells != [mark] * len(cells):
                raise Hazard("memory that was given to someone else was written to")

        self.current().push(begin, end)
        self.tick()


class Worker:
    """A thread with a queue: carries out an order at once, or when someone waits for it, in order."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._waiting: list[Callable[[], None]] = []

    def submit(self, run: Callable[..., None], *given: Any) -> SimpleNamespace:
        failed: list[BaseException] = []
        done: list[bool] = []

        def carry_out() -> None:
            self._gpu.thread = "worker"
            try:
                run(*given)
            except OSError as error:
                failed.append(error)
            finally:
                self._gpu.thread = "main"
                done.append(True)

        def result() -> None:
            while not done:
                self._waiting.pop(0)()
            if failed:
                raise failed[0]

        self._waiting.append(carry_out)
        if self._gpu.schedule.soon():
            with suppress(OSError):
                result()
        return SimpleNamespace(result=result)

    def shutdown(self, *, cancel_futures: bool) -> None:
        self._waiting.clear()
