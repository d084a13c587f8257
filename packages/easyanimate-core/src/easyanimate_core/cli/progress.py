"""What a person sees while a run goes on: the phase, step k/N, seconds per step, time left.

Everything goes to stderr. Where stderr is no terminal, only notices are written, one line each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from easyanimate_core.events import Notice, StageFinished, StageProgress, StageStarted, Step

if TYPE_CHECKING:
    from easyanimate_core.events import Event

__all__ = ["RunProgress", "StepClock"]

_NOTICEABLE: Final = 0.05  # seconds; the line of a shorter phase disappears with it


class StepClock:
    """Times finished steps and estimates the rest."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._marks = [clock()]

    def tick(self) -> None:
        """A step is finished now."""
        self._marks.append(self._clock())

    @property
    def finished(self) -> int:
        """How many steps are finished."""
        return len(self._marks) - 1

    @property
    def seconds_per_step(self) -> float | None:
        """Mean seconds of a step; `None` before the first is finished.

        The first step measures kernels and fills caches, so it counts only until there is a second.
        """
        marks = self._marks[1:] if self.finished >= 2 else self._marks
        return (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) >= 2 else None

    def remaining(self, steps: int) -> float | None:
        """Seconds that `steps` more steps will take; `None` until two steps are finished."""
        pace = self.seconds_per_step
        return pace * steps if pace is not None and self.finished >= 2 else None


class RunProgress:
    """An event subscriber that draws one line per phase. Use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        """Draw on `console`; on stderr by default."""
        self._console = console or Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[said]}", justify="left"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._clocks: dict[str, StepClock] = {}

    def __enter__(self) -> RunProgress:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and leave the terminal clean."""
        self._bars.stop()

    def refresh(self) -> None:
        """Draw now; it happens by itself ten times a second."""
        self._bars.refresh()

    def __call__(self, event: Event) -> None:
        """Draw what an event says."""
        match event:
            case StageStarted(stage):
                self._tasks[stage] = self._bars.add_task(stage.replace("_", " "), total=None, said="")
                self._clocks[stage] = StepClock()
            case Step(index=index, total=total, stage=stage):
                self._clocks.setdefault(stage, StepClock()).tick()
                self._show(stage, index + 1, total, self._pace(stage, index + 1, total))
            case StageProgress(stage, done, total, unit):
                of = f"{done}/{total}" if total is not None else f"{done}"
                self._show(stage, done, total, f"{of} {unit}".rstrip())
            case StageFinished(stage=stage, seconds=seconds) if seconds >= _NOTICEABLE:
                self._show(stage, 1, 1, f"{seconds:.1f} s")
            case StageFinished(stage=stage) if stage in self._tasks:
                self._bars.remove_task(self._tasks.pop(stage))
            case Notice(message, level):
                self.say(message, "warning" if level == "warning" else "note")

    def _pace(self, stage: str, done: int, total: int) -> str:
        clock = self._clocks[stage]
        pace, left = clock.seconds_per_step, clock.remaining(total - done)
        words = [f"{done}/{total}"]
        if pace is not None:
            words.append(f"{pace:.3g} s/it")
        if left is not None:
            words.append(f"ETA {_clock_face(left)}")
        return "  ".join(words)

    def _show(self, stage: str, done: float, total: float | None, said: str) -> None:
        if stage in self._tasks:
            self._bars.update(self._tasks[stage], completed=done, total=total, said=said)

    def say(self, message: str, word: str = "note") -> None:
        """Write one line, above the bars."""
        self._console.print(Text(f"{word}: {message}"), soft_wrap=True)


def _clock_face(seconds: float) -> str:
    """`0:07`, `12:03`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
