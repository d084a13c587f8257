"""SHA-256 of files, computed once while they stay as they are."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from easyanimate_core.errors import Cancelled

if TYPE_CHECKING:
    from easyanimate_core.engine.store import JobStore

__all__ = ["FileDigests", "sha256_of"]

_PIECE: Final = 1 << 22  # bytes; hashlib lets other threads run meanwhile
_SETTLED: Final = 2.0  # seconds; a file that is younger may change again within one tick of its clock


def sha256_of(path: Path, store: JobStore, stop: threading.Event | None = None) -> str:
    """SHA-256 of a file, from the store when path, size and time of change are those of last time.

    Raises:
        OSError: it cannot be read.
        Cancelled: `stop` was set.
    """
    real = path.resolve()
    status = real.stat()
    if (known := store.digest(str(real), status.st_size, status.st_mtime_ns)) is not None:
        return known
    digest = hashlib.sha256()
    with real.open("rb") as file:
        while piece := file.read(_PIECE):
            if stop is not None and stop.is_set():
                raise Cancelled("hashing was stopped")
            digest.update(piece)
    if time.time() - status.st_mtime > _SETTLED:
        store.keep_digest(str(real), status.st_size, status.st_mtime_ns, digest.hexdigest())
    return digest.hexdigest()


class FileDigests:
    """Hashes files in the background while a run has better to do; use it as a context manager.

    Args:
        paths: what to hash.
        store: remembers results.
    """

    def __init__(self, paths: Iterable[Path], store: JobStore) -> None:
        self._paths, self._store = tuple(paths), store
        self._found: dict[Path, str] = {}
        self._error: OSError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="easyanimate-digests", daemon=True)

    def __enter__(self) -> FileDigests:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop, finished or not."""
        self._stop.set()
        self._thread.join()

    def result(self) -> dict[Path, str]:
        """Wait, then all digests by path.

        Raises:
            OSError: a file could not be read.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return dict(self._found)

    def so_far(self) -> dict[Path, str]:
        """The digests that are there by now."""
        return dict(self._found)

    def _work(self) -> None:
        try:
            for path in self._paths:
                self._found[path] = sha256_of(path, self._store, self._stop)
        except OSError as error:
            self._error = error
        except Cancelled:
            return
