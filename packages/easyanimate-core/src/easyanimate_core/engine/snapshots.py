"""Snapshots in a job's folder: one safetensors file per name, whole or not there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safetensors import safe_open

from easyanimate_core.checkpoints.header import read_header
from easyanimate_core.checkpoints.save import write_tensors
from easyanimate_core.errors import CheckpointError
from easyanimate_core.interfaces import Snapshot

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FolderSnapshots", "read_snapshot", "write_snapshot"]

_NOTES: Final = "notes"


def write_snapshot(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write tensors, and JSON beside them in the file's metadata, in one step.

    Raises:
        OSError: the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {_NOTES: json.dumps(notes, ensure_ascii=False)})


def read_snapshot(path: Path) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Raises:
        CheckpointNotFound: there is no such file.
        UnsafeCheckpoint: the file is damaged or cut off.
    """
    header = read_header(path)
    with safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name).clone() for name in header.tensors}
    return Snapshot(tensors, json.loads(header.metadata.get(_NOTES, "{}")))


class FolderSnapshots:
    """Keeps snapshots in a folder, which is made with the first of them.

    Args:
        folder: where they go.
        every: steps between two of one name, at least 1.
        seconds: between two of one name, at least.
        clock: seconds that never go back.
    """

    def __init__(
        self, folder: Path, *, every: int = 1, seconds: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self._every, self._seconds, self._clock = every, seconds, clock
        self._began = clock()
        self._steps: dict[str, int] = {}
        self._times: dict[str, float] = {}

    def path(self, name: str) -> Path:
        """The file of a name."""
        return self.folder / f"{name}.safetensors"

    def load(self, name: str) -> Snapshot | None:
        """What was saved last; `None` when nothing was, or when it cannot be read any more."""
        try:
            return read_snapshot(self.path(name))
        except (CheckpointError, OSError, ValueError):
            return None  # a power cut may leave anything; the run then starts earlier

    def save(self, name: str, tensors: Mapping[str, Tensor], **notes: Any) -> None:
        """Keep this in the place of what had the name before."""
        write_snapshot(self.path(name), tensors, notes)
        self._steps[name], self._times[name] = 0, self._clock()

    def due(self, name: str) -> bool:
        """Whether enough steps, counted by asking, and enough seconds have passed."""
        self._steps[name] = self._steps.get(name, 0) + 1
        passed = self._clock() - self._times.get(name, self._began)
        return self._steps[name] >= self._every and passed >= self._seconds

    def drop(self, name: str) -> None:
        """Forget a name and all that is within it."""
        self.path(name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def within(self, scope: str) -> FolderSnapshots:
        """Snapshots in a subfolder."""
        return FolderSnapshots(self.folder / scope, every=self._every, seconds=self._seconds, clock=self._clock)
