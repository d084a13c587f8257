"""The store of jobs: one SQLite database (WAL) that many processes share, and a folder per unfinished job.

A running job holds a lock that the operating system releases when the process dies. Whoever reads the store next
finds the job running without a holder, and calls it *interrupted*.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from easyanimate_core.engine.home import data_folder
from easyanimate_core.engine.job import Job, JobError, JobSpec, JobState, Progress
from easyanimate_core.engine.lock import held, is_held
from easyanimate_core.errors import Cancelled, EasyAnimateError, ExecutionError, InvalidRequest

__all__ = ["JobStore"]

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    cancel INTEGER NOT NULL DEFAULT 0,
    spec TEXT NOT NULL,
    created TEXT NOT NULL,
    started TEXT,
    finished TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    progress TEXT,
    error TEXT,
    outputs TEXT NOT NULL DEFAULT '[]',
    batch TEXT NOT NULL DEFAULT '',
    key TEXT NOT NULL DEFAULT ''
);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_batch ON jobs (batch, key);
CREATE TABLE digests (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, sha256 TEXT NOT NULL);
"""
_JSON: Final = ("spec", "progress", "error", "outputs")
_WAIT: Final = 30.0  # seconds for another process's write


class JobStore:
    """Jobs of one data folder. Cheap to make; safe to share between threads; any number of processes may have one.

    Args:
        folder: the data folder; by default as `data_folder` says. It is made.

    Raises:
        ExecutionError: the folder cannot be written to, or was made by a newer version.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or data_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._open() as db:
                self._migrate(db)
        except (OSError, sqlite3.Error) as error:
            raise ExecutionError(
                f"jobs cannot be kept in '{self.folder}': {error}", "Set EASYANIMATE_HOME to a folder of yours."
            ) from error

    def add(self, spec: JobSpec, *, batch: str = "", key: str = "") -> Job:
        """Queue a job."""
        uid = secrets.token_hex(8)
        with self._open() as db:
            cursor = db.execute(
                "INSERT INTO jobs (uid, state, spec, created, batch, key) VALUES (?, 'queued', ?, ?, ?, ?)",
                (uid, spec.model_dump_json(), _now(), batch, key),
            )
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (cursor.lastrowid,)).fetchone()
        return _job(row)

    def get(self, number: int) -> Job:
        """One job.

        Raises:
            InvalidRequest: there is none of this number.
        """
        self._find_interrupted()
        with self._open() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise InvalidRequest(f"there is no job '{number}'", "See: easyanimate jobs list.")
        return _job(row)

    def list(
        self, *, states: Iterable[JobState] = (), batch: str | None = None, newest: int | None = None
    ) -> tuple[Job, ...]:
        """Jobs in the order in which they were queued.

        Args:
            states: only those in one of these; all when empty.
            batch: only those of this batch.
            newest: at most this many, the latest.
        """
        self._find_interrupted()
        wanted = tuple(states)
        where = [f"state IN ({', '.join('?' * len(wanted))})"] if wanted else []
        where += ["batch = ?"] if batch is not None else []
        values: tuple[Any, ...] = (*wanted, *([batch] if batch is not None else []))
        query = f"SELECT * FROM jobs {'WHERE ' + ' AND '.join(where) if where else ''} ORDER BY id DESC LIMIT ?"
        with self._open() as db:
            rows = db.execute(query, (*values, -1 if newest is None else newest)).fetchall()
        return tuple(_job(row) for row in reversed(rows))

    def job_folder(self, number: int) -> Path:
        """Where a job keeps its snapshots while it is not done."""
        return self.folder / "jobs" / str(number)

    @contextmanager
    def running(self, number: int) -> Iterator[Job]:
        """Inside, this process runs the job. How the body ends decides the job's next state.

        Without an error the job is done; `Cancelled` makes it cancelled, another error failed; `KeyboardInterrupt`
        and the like make it interrupted. All but done can run again, and keep their folder.

        Raises:
            InvalidRequest: there is no such job, it is done, or another process runs it.
        """
        folder = self.job_folder(number)
        state = self.get(number).state
        if state == "done":
            raise InvalidRequest(f"the job '{number}' is done", "Make it again: easyanimate replay FILE.")
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "lock", patience=0.3) as mine:
            if not mine:
                raise InvalidRequest(f"the job '{number}' runs already", f"Stop it: easyanimate jobs cancel {number}.")
            self._set(number, "attempts = attempts + 1, cancel = 0, error = NULL", state="running", started=_now())
            try:
                yield self._fetch(number)
            except BaseException as error:
                self._set(number, "cancel = 0", finished=_now(), **_ending(error))
                raise
            self._set(number, "progress = NULL", state="done", finished=_now())
        shutil.rmtree(folder, ignore_errors=True)

    def next_queued(self) -> int | None:
        """Number of the job that has been queued longest; `None` when the queue is empty."""
        queued = self.list(states=["queued"])
        return queued[0].id if queued else None

    def report(self, number: int, progress: Progress | None = None, outputs: Iterable[str] | None = None) -> bool:
        """Note how far a job is, or what it wrote; returns whether somebody wants it cancelled."""
        changes: dict[str, Any] = {}
        if progress is not None:
            changes["progress"] = progress.model_dump_json()
        if outputs is not None:
            changes["outputs"] = json.dumps(list(outputs))
        if changes:
            self._set(number, **changes)
        with self._open() as db:
            row = db.execute("SELECT cancel FROM jobs WHERE id = ?", (number,)).fetchone()
        return row is not None and bool(row["cancel"])

    def cancel(self, number: int) -> Job:
        """Ask a running job to stop at its next check; take a waiting one out of the queue at once.

        Raises:
            InvalidRequest: there is no such job, or it has ended already.
        """
        job = self.get(number)
        if job.state in ("done", "failed", "cancelled"):
            raise InvalidRequest(f"the job '{number}' is {job.state} already", "See: easyanimate jobs list.")
        if job.state == "running":
            self._set(number, cancel=1)
        else:
            self._set(number, state="cancelled", finished=_now())
        return self._fetch(number)

    def remove(self, number: int) -> None:
        """Forget a job and what it kept; files that it made stay.

        Raises:
            InvalidRequest: there is no such job, or it runs.
        """
        if self.get(number).state == "running":
            raise InvalidRequest(f"the job '{number}' runs", f"First: easyanimate jobs cancel {number}.")
        shutil.rmtree(self.job_folder(number), ignore_errors=True)
        with self._open() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (number,))

    def digest(self, path: str, size: int, mtime: int) -> str | None:
        """The SHA-256 that a file had when it had this size and this time of change (ns)."""
        with self._open() as db:
            row = db.execute(
                "SELECT sha256 FROM digests WHERE path = ? AND size = ? AND mtime = ?", (path, size, mtime)
            ).fetchone()
        return None if row is None else str(row["sha256"])

    def keep_digest(self, path: str, size: int, mtime: int, sha256: str) -> None:
        """Remember the SHA-256 of a file."""
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (path, size, mtime, sha256))

    def _find_interrupted(self) -> None:
        """Running jobs that no living process holds are interrupted."""
        with self._open() as db:
            rows = db.execute("SELECT id, attempts FROM jobs WHERE state = 'running'").fetchall()
        for row in rows:
            if not is_held(self.job_folder(row["id"]) / "lock"):
                # Only if nobody started it again since the question.
                with self._open() as db:
                    db.execute(
                        "UPDATE jobs SET state = 'interrupted', cancel = 0 "
                        "WHERE id = ? AND attempts = ? AND state = 'running'",
                        (row["id"], row["attempts"]),
                    )

    def _fetch(self, number: int) -> Job:
        with self._open() as db:
            return _job(db.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone())

    def _set(self, number: int, also: str = "", **columns: Any) -> None:
        changes = ", ".join([*([also] if also else []), *(f"{name} = ?" for name in columns)])
        with self._open() as db:
            db.execute(f"UPDATE jobs SET {changes} WHERE id = ?", (*columns.values(), number))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for every operation: shared by no thread, inherited by no child."""
        db = sqlite3.connect(self.folder / "jobs.sqlite3", timeout=_WAIT)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = NORMAL")
            with db:
                yield db
        finally:
            db.close()

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise ExecutionError(
                f"the jobs in '{self.folder}' were written by a newer version",
                "Upgrade: pip install -U easyanimate-core, or set EASYANIMATE_HOME to another folder.",
            )
        if version == 0:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:  # nobody was faster
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _job(row: sqlite3.Row) -> Job:
    columns = dict(row)
    del columns["cancel"]
    return Job.model_validate(
        {name: json.loads(value) if name in _JSON and value else value for name, value in columns.items()}
    )


def _ending(error: BaseException) -> dict[str, Any]:
    """Columns of a job that ended with this error."""
    if isinstance(error, Cancelled):
        return {"state": "cancelled"}
    if not isinstance(error, Exception):
        return {"state": "interrupted"}
    said = (error.message, error.hint) if isinstance(error, EasyAnimateError) else (str(error) or repr(error), "")
    failed = JobError(kind=type(error).__name__, message=said[0], hint=said[1])
    return {"state": "failed", "error": failed.model_dump_json()}
