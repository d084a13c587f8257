"""Where packed weights wait: plain or pinned main memory, or a file that is mapped."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor

from easyanimate_core.errors import ExecutionError
from easyanimate_core.sizes import written_bytes

__all__ = ["Homes"]


class Homes:
    """Gives out buffers `(bytes,)` of uint8 that are not on the device.

    Args:
        pinned: lock them in memory, so that a GPU can fetch them by itself. Where that is refused, or would waste
            more than a quarter, they are plain.
        folder: make files there instead, which nothing but the system's page cache keeps in memory; `None` is memory.
        files: make files at all.
    """

    def __init__(self, *, pinned: bool = False, files: bool = False, folder: str | None = None) -> None:
        self._pinned = pinned
        self._count = 0
        self._folder: Path | None = None
        self.bytes = 0
        if files:
            try:
                self._folder = Path(tempfile.mkdtemp(prefix="easyanimate-", dir=folder))
            except OSError as error:
                raise ExecutionError(
                    f"weights cannot be kept in '{folder or tempfile.gettempdir()}': {error.strerror}",
                    'Name a folder of yours: --offload \'{"name": "stream", "source": "disk", "folder": "FOLDER"}\'.',
                ) from error
            # Also when nobody says that it is over.
            self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def make(self, nbytes: int) -> Tensor:
        """A buffer of this size; in a file, it can be written now and is read again whenever it is used.

        Raises:
            ExecutionError: the disk is full.
        """
        self.bytes += nbytes
        if self._folder is not None:
            return self._mapped(nbytes)
        if self._pinned and _rounded_up(nbytes) * 4 <= nbytes * 5:
            try:
                return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
            except RuntimeError:
                self._pinned = False  # locked memory is limited on some systems; copies are then slower, not wrong
        return torch.empty(nbytes, dtype=torch.uint8)

    def _mapped(self, nbytes: int) -> Tensor:
        assert self._folder is not None
        path = self._folder / f"{self._count}.weights"
        self._count += 1
        try:
            with path.open("wb") as file:
                file.truncate(nbytes)
            return torch.from_file(str(path), shared=True, size=nbytes, dtype=torch.uint8)
        except (OSError, RuntimeError) as error:
            raise ExecutionError(
                f"'{path.parent}' has no room for {written_bytes(nbytes)} of weights", "Name another folder."
            ) from error

    def close(self) -> None:
        """Remove the files. Tensors that live in them stay readable until they are gone, as systems do it."""
        if self._folder is not None:
            self._remove()
            self._folder = None


def _rounded_up(nbytes: int) -> int:
    """What torch takes for a pinned buffer: the next power of two."""
    return 1 << max(nbytes - 1, 0).bit_length()
