"""Jobs on a terminal: the engine, progress, Ctrl-C, and one line per finished file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyanimate_core.cli.interrupt import cancel_on_interrupt
from easyanimate_core.engine import Engine, JobStore
from easyanimate_core.errors import Cancelled, ExecutionError
from easyanimate_core.events import CancelToken, EventBus

if TYPE_CHECKING:
    from easyanimate_core.engine import Job
    from easyanimate_core.engine.files import Made

__all__ = ["finished_lines", "open_engine", "progress_shown", "run_shown"]


@contextmanager
def open_engine() -> Iterator[Engine]:
    """The engine of the user's data folder; where that cannot be written to, one that forgets everything afterwards."""
    with tempfile.TemporaryDirectory(prefix="easyanimate-", ignore_cleanup_errors=True) as spare:
        try:
            store = JobStore()
        except ExecutionError as error:
            click.echo(f"warning: {error.message}; an interrupted run cannot be resumed. {error.hint}", err=True)
            store = JobStore(Path(spare))
        yield Engine(store)


def run_shown(engine: Engine, job: Job, *, cancel: CancelToken | None = None) -> tuple[Made, ...]:
    """Run a job with progress on the terminal and Ctrl-C as cancel.

    Args:
        engine: of the job.
        job: to run.
        cancel: what Ctrl-C sets; give one to know about it afterwards.

    Raises:
        EasyAnimateError: as `Engine.run`; after a cancel, the hint says how to go on.
    """
    with progress_shown(cancel) as (events, token):
        try:
            return engine.run(job.id, events=events, cancel=token)
        except Cancelled as error:
            raise Cancelled(error.message, error.hint or f"Go on: easyanimate jobs resume {job.id}") from error


@contextmanager
def progress_shown(cancel: CancelToken | None = None) -> Iterator[tuple[EventBus, CancelToken]]:
    """Inside, events are drawn on the terminal, and Ctrl-C sets the token."""
    from easyanimate_core.cli.progress import RunProgress

    token = cancel or CancelToken()
    with (
        RunProgress() as progress,
        cancel_on_interrupt(token, lambda: progress.say("stopping; Ctrl-C again stops at once")),
    ):
        yield EventBus(progress), token


def finished_lines(made: Sequence[Made], *, as_json: bool) -> Iterator[str]:
    """What to print about finished files: paths, or JSON objects of path and manifest.

    Args:
        made: the files.
        as_json: which of both.
    """
    for item in made:
        document = item.manifest.as_json() if item.manifest is not None else {}
        yield json.dumps({"file": str(item.path), **document}, ensure_ascii=False) if as_json else str(item.path)
