"""What a job is: the order that was given, and how far it has come."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from easyanimate_core.schema import Hint, Model

__all__ = ["Job", "JobError", "JobSpec", "JobState", "Progress"]

JobState = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
"""`interrupted` is a job that ran when its process died."""


class JobSpec(Model):
    """The order: what to make, where it goes, how it runs."""

    request: dict[str, Any]
    """The completed `GenerationRequest` with its seed, as JSON."""

    output: str | None = None
    """A file, or a folder for numbered files, as the user wrote it. Default: `outputs/`."""

    folder: str
    """The folder in which the order was given: relative paths begin there."""

    overwrite: bool = False
    """Existing files may be replaced."""

    sidecar: bool = True
    """Write the manifest beside each file, as `FILE.json`."""

    manifest: bool = True
    """Write the manifest into each file."""

    keep_latents: bool = False
    """Keep the latents beside the first file, as `FILE.latents.safetensors`."""

    device: str | None = None
    """Where to compute; default: the best at hand."""

    dtype: str | None = None
    """Number format of the computation; default: as weights and device suggest."""

    snapshot_every: Annotated[int, Field(ge=1), Hint(unit="steps")] = 1
    """Keep the state of the run after this many steps, but not before `snapshot_seconds` have passed."""

    snapshot_seconds: Annotated[float, Field(ge=0), Hint(unit="s")] = 5.0
    """Seconds between two snapshots, at least: short runs write none."""


class JobError(Model):
    """Why a job failed."""

    kind: str
    """Class of the error."""

    message: str
    """What happened."""

    hint: str = ""
    """What to do about it."""


class Progress(Model):
    """How far a running job is."""

    stage: str
    """What is being done."""

    done: int = 0
    """How much of it is done."""

    total: int | None = None
    """How much there is; `None` when unknown."""


class Job(Model):
    """One row of the store."""

    id: int
    """Number of the job, from 1; never used twice."""

    uid: str
    """A word that no other job of anybody has; it stands in the manifest."""

    state: JobState
    """How it is with the job."""

    spec: JobSpec
    """The order."""

    created: str
    """When it was ordered: UTC, ISO 8601."""

    started: str | None = None
    """When it was last started."""

    finished: str | None = None
    """When it ended, however it ended."""

    attempts: int = 0
    """How often it was started."""

    progress: Progress | None = None
    """How far it is, or was."""

    error: JobError | None = None
    """Why it failed."""

    outputs: tuple[str, ...] = ()
    """Files that were written, as absolute paths."""

    batch: str = ""
    """The batch that it belongs to."""

    key: str = ""
    """Which entry of the batch it is."""

    @property
    def prompt(self) -> str:
        """The first prompt, for listings."""
        said = self.spec.request.get("prompt", "")
        return said if isinstance(said, str) else str(next(iter(said), ""))
