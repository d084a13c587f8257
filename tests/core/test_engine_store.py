"""The store of jobs: what any process may do to a job, and what survives the death of one."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from easyanimate_core.engine import Job, JobSpec, JobStore
from easyanimate_core.engine.digests import sha256_of
from easyanimate_core.engine.home import data_folder
from easyanimate_core.engine.job import Progress
from easyanimate_core.errors import Cancelled, ExecutionError, InvalidRequest, OutOfMemory


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "home")


@pytest.fixture
def job(store: JobStore, tmp_path: Path) -> Job:
    return store.add(JobSpec(request={"prompt": "a cat", "seed": 3}, folder=str(tmp_path)))


def run_and_die(store: JobStore, number: int) -> None:
    """A process that starts the job and is killed."""
    code = (
        "import os, signal, sys; from pathlib import Path; from easyanimate_core.engine import JobStore\n"
        "store = JobStore(Path(sys.argv[1]))\n"
        "with store.running(int(sys.argv[2])): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.folder), str(number)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_the_data_folder_is_where_the_user_says_or_the_platform() -> None:
    assert data_folder({"EASYANIMATE_HOME": "here"}) == Path("here")
    if sys.platform == "linux":
        assert data_folder({"XDG_DATA_HOME": "data"}) == Path("data/easyanimate")
        assert data_folder({}) == Path.home() / ".local/share/easyanimate"


def test_a_job_waits_runs_and_is_done(store: JobStore, job: Job) -> None:
    assert (job.id, job.state, job.prompt, job.attempts) == (1, "queued", "a cat", 0)
    assert store.next_queued() == 1
    with store.running(1) as running:
        assert (running.state, running.attempts) == ("running", 1)
        assert store.get(1).state == "running"
        assert store.next_queued() is None
        (store.job_folder(1) / "kept").write_text("something")
    assert store.get(1).state == "done"
    assert not store.job_folder(1).exists(), "what was kept to go on is not needed any more"
    with pytest.raises(InvalidRequest, match="is done"), store.running(1):
        pass


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (Cancelled("the run was cancelled"), "cancelled", None),
        (OutOfMemory("too small", "Buy another."), "failed", ("OutOfMemory", "too small", "Buy another.")),
        (ValueError("odd"), "failed", ("ValueError", "odd", "")),
        (KeyboardInterrupt(), "interrupted", None),
    ],
)
def test_the_way_a_run_ends_is_its_state(
    store: JobStore, job: Job, error: BaseException, state: str, said: tuple[str, str, str] | None
) -> None:
    with pytest.raises(type(error)), store.running(1):
        raise error
    ended = store.get(1)
    assert ended.state == state
    assert (ended.error and (ended.error.kind, ended.error.message, ended.error.hint)) == said
    with store.running(1) as again:
        assert again.attempts == 2
        assert again.error is None


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_a_killed_run_is_interrupted_and_can_go_on(store: JobStore, job: Job) -> None:
    run_and_die(store, 1)
    assert JobStore(store.folder).get(1).state == "interrupted"
    assert store.job_folder(1).exists()
    with store.running(1):
        pass
    assert store.get(1).state == "done"


def test_one_process_runs_a_job(store: JobStore, job: Job) -> None:
    with store.running(1), pytest.raises(InvalidRequest, match="runs already"), JobStore(store.folder).running(1):
        pass


def test_cancelling(store: JobStore, job: Job) -> None:
    with store.running(1):
        assert not store.report(1)
        assert JobStore(store.folder).cancel(1).state == "running", "the one that runs decides when"
        assert store.report(1)
    second = store.add(job.spec)
    assert store.cancel(second.id).state == "cancelled"
    with pytest.raises(InvalidRequest, match="cancelled already"):
        store.cancel(second.id)


def test_progress_and_outputs_are_told(store: JobStore, job: Job) -> None:
    with store.running(1):
        store.report(1, Progress(stage="denoise", done=3, total=10), outputs=["a.mp4"])
        told = store.get(1)
        assert told.progress == Progress(stage="denoise", done=3, total=10)
        assert told.outputs == ("a.mp4",)


def test_removed_jobs_leave_nothing_and_numbers_are_not_used_again(store: JobStore, job: Job) -> None:
    with store.running(1), pytest.raises(InvalidRequest, match="runs"):
        store.remove(1)
    store.remove(1)
    with pytest.raises(InvalidRequest, match="no job '1'"):
        store.get(1)
    assert store.add(job.spec).id == 2


def test_lists_can_be_narrowed(store: JobStore, job: Job) -> None:
    store.add(job.spec, batch="b", key="k")
    store.cancel(store.add(job.spec).id)
    assert [j.id for j in store.list()] == [1, 2, 3]
    assert [j.id for j in store.list(newest=2)] == [2, 3]
    assert [j.id for j in store.list(states=["queued"])] == [1, 2]
    assert [(j.id, j.key) for j in store.list(batch="b")] == [(2, "k")]


def test_the_database_is_shared_by_readers_and_a_writer(store: JobStore) -> None:
    db = sqlite3.connect(store.folder / "jobs.sqlite3")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_a_store_of_a_newer_version_is_left_alone(store: JobStore) -> None:
    db = sqlite3.connect(store.folder / "jobs.sqlite3")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ExecutionError, match="newer version"):
        JobStore(store.folder)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExecutionError, match="cannot be kept in") as caught:
        JobStore(tmp_path / "file" / "home")
    assert "EASYANIMATE_HOME" in caught.value.hint


def test_digests_are_computed_once_while_a_file_stays_the_same(store: JobStore, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    young = sha256_of(path, store)
    assert store.digest(str(path.resolve()), 3, path.stat().st_mtime_ns) is None, "it may change within a tick"
    os.utime(path, (1, 1))
    assert sha256_of(path, store) == young
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    assert sha256_of(path, store) == young, "known by path, size and time of change"
    os.utime(path, (2, 2))
    assert sha256_of(path, store) != young
