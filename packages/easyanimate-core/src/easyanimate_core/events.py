"""What a run tells the world: events, the bus that carries them, and the token that stops it.

Progress bars, trackers, the HTTP stream, the UI and plugins are subscribers; nothing in the SDK prints.
Events are frozen and JSON-able, so that one made in a worker process means the same in a browser.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from easyanimate_core.errors import Cancelled, EasyAnimateError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "SILENT",
    "CancelToken",
    "Event",
    "EventBus",
    "JobFailed",
    "JobFinished",
    "JobStarted",
    "Metric",
    "Notice",
    "StageFinished",
    "StageProgress",
    "StageStarted",
    "Step",
    "Subscriber",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    def as_json(self) -> dict[str, Any]:
        """The event as a JSON object: its class name under `event`, then its fields.

        Fields that cannot be serialised (a step's preview) are left out.
        """
        kept = (f.name for f in fields(self) if f.metadata.get("json", True))
        return {"event": type(self).__name__, **{name: getattr(self, name) for name in kept}}


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """A run begins.

    Attributes:
        job: name of the run, unique within its process.
        stages: what will run, in order.
        request: the request (or training configuration) as JSON.
    """

    job: str
    stages: tuple[str, ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    """A stage, or a phase around the stages such as `load` and `save`, begins."""

    stage: str


@dataclass(frozen=True, slots=True)
class StageProgress(Event):
    """Part of a stage that has no steps is done: files loaded, frames decoded, frames written.

    Attributes:
        stage: name of the stage.
        done: how much is done, in `unit`.
        total: how much there is; `None` when unknown.
        unit: what is counted, for example `"frames"` or `"bytes"`.
    """

    stage: str
    done: int
    total: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Step(Event):
    """One step is finished.

    Attributes:
        index: the finished step, from 0 to `total` − 1.
        total: steps of this run.
        stage: stage that steps.
        preview: makes a picture of the present state, `(3, F, H, W)` in 0…1, when somebody wants to see
            it; costs nothing until called, and is not serialised.
    """

    index: int
    total: int
    stage: str = "denoise"
    preview: Callable[[], Tensor] | None = field(default=None, compare=False, repr=False, metadata={"json": False})


@dataclass(frozen=True, slots=True)
class StageFinished(Event):
    """A stage is done.

    Attributes:
        stage: name of the stage.
        seconds: wall time.
        peak_bytes: most memory that the device held meanwhile; `None` where nobody measured.
    """

    stage: str
    seconds: float
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Metric(Event):
    """A number worth keeping, such as a training loss.

    Attributes:
        name: what was measured.
        value: the number.
        step: the step that it belongs to, counted from 0.
    """

    name: str
    value: float
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something that the user should know and that is no error, in one sentence."""

    message: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class JobFinished(Event):
    """A run is done.

    Attributes:
        job: name of the run.
        seconds: wall time.
        outputs: paths of the files that were written.
    """

    job: str
    seconds: float
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobFailed(Event):
    """A run ended with an error.

    Attributes:
        job: name of the run.
        error: class of the error.
        message: what happened.
        hint: what to do about it.
    """

    job: str
    error: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, job: str, error: BaseException) -> JobFailed:
        """The event that reports `error`."""
        kind = type(error).__name__
        if isinstance(error, EasyAnimateError):
            return cls(job, kind, error.message, error.hint)
        return cls(job, kind, str(error) or repr(error))


Subscriber: TypeAlias = Callable[[Event], None]
"""Anything that can be called with an event."""


class EventBus:
    """Hands every event to every subscriber, in the order in which they subscribed.

    A subscriber runs in the thread that emits, and its exceptions reach the emitter. Subscribing while
    events flow is safe.
    """

    def __init__(self, *subscribers: Subscriber) -> None:
        self._lock = threading.Lock()
        self._subscribers = subscribers

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """Who listens now."""
        return self._subscribers

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Listen from now on; call the result to stop."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell everyone."""
        for subscriber in self._subscribers:
            subscriber(event)

    @contextmanager
    def span(self, stage: str, *, peak_bytes: Callable[[], int | None] | None = None) -> Iterator[None]:
        """Report the start of a stage, and its end with wall time unless it raises.

        Args:
            stage: name of the stage.
            peak_bytes: asked at the end for the memory peak; the bus itself knows no devices.
        """
        self.emit(StageStarted(stage))
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.emit(StageFinished(stage, seconds, peak_bytes() if peak_bytes is not None else None))


class _SilentBus(EventBus):
    """A bus that stays empty, so that it can be shared as a default."""

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        raise TypeError("nobody can subscribe to SILENT; make an EventBus() and pass it on")


SILENT: Final[EventBus] = _SilentBus()
"""The bus for callers that do not listen."""


class CancelToken:
    """Asks a run to stop; checked per step, per block and per VAE tile. Safe across threads and signals."""

    def __init__(self) -> None:
        self._flag = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether someone asked."""
        return self._flag.is_set()

    def cancel(self) -> None:
        """Ask the run to stop at its next check."""
        self._flag.set()

    def check(self) -> None:
        """Go on, or stop.

        Raises:
            Cancelled: someone asked.
        """
        if self._flag.is_set():
            raise Cancelled("the run was cancelled")
