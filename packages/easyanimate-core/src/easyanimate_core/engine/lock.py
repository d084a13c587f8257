"""A lock that the operating system releases when its holder dies, however it dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["held", "is_held"]


_PAUSE: Final = 0.02  # seconds


@contextmanager
def held(path: Path, *, patience: float = 0.0) -> Iterator[bool]:
    """Try to take the lock; the body is told whether that worked, and holds the lock if it did.

    Args:
        path: of the lock file; it is made and stays. Its folder exists.
        patience: seconds to keep trying: somebody may only be asking `is_held`.
    """
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        taken, end = _taken(file), time.monotonic() + patience
        while not taken and time.monotonic() < end:
            time.sleep(_PAUSE)
            taken = _taken(file)
        yield taken
    finally:
        os.close(file)  # which releases the lock


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    if not path.exists():
        return False
    with held(path) as taken:
        return not taken


if sys.platform == "win32":
    import msvcrt

    def _taken(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _taken(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
