"""A look at the store, twice a second, while a job runs: how far it is goes in, the wish to cancel comes out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from easyanimate_core.engine.job import Progress
from easyanimate_core.errors import ExecutionError
from easyanimate_core.events import Event, StageProgress, StageStarted, Step

if TYPE_CHECKING:
    from easyanimate_core.engine.store import JobStore
    from easyanimate_core.events import CancelToken

__all__ = ["Watch"]

_PERIOD: Final = 0.5  # seconds


class Watch:
    """Subscribe it to the events of a run, and use it as a context manager around the run.

    Args:
        store: of the job.
        number: of the job.
        cancel: is cancelled when somebody asks for that through the store.
    """

    def __init__(self, store: JobStore, number: int, cancel: CancelToken) -> None:
        self._store, self._number, self._cancel = store, number, cancel
        self._latest: Progress | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="easyanimate-watch", daemon=True)

    def __enter__(self) -> Watch:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop looking."""
        self._done.set()
        self._thread.join()

    def __call__(self, event: Event) -> None:
        """Remember how far the run is."""
        match event:
            case StageStarted(stage):
                self._latest = Progress(stage=stage)
            case StageProgress(stage, done, total):
                self._latest = Progress(stage=stage, done=done, total=total)
            case Step(index=index, total=total, stage=stage):
                self._latest = Progress(stage=stage, done=index + 1, total=total)

    def _work(self) -> None:
        told: Progress | None = None
        while not self._done.wait(_PERIOD):
            latest = self._latest
            try:
                wanted = self._store.report(self._number, latest if latest != told else None)
            except ExecutionError:
                continue  # the store is busy; the run itself is what counts
            told = latest
            if wanted:
                self._cancel.cancel()
