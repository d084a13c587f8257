"""Where weights wait: packed in plain or pinned main memory, or where they lie in files that are mapped."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor

from easyanimate_core.errors import ExecutionError
from easyanimate_core.offload.pack import Pack
from easyanimate_core.sizes import written_bytes

__all__ = ["Home", "Homes", "pinned", "plain"]

_PAGE: Final = 4096  # bytes; a file for less would be waste


class Home(Protocol):
    """Where tensors that come and go together wait.

    Attributes:
        pack: the tensors.
        pinned: one buffer that a GPU can fetch by itself; `None` where there is none.
    """

    pack: Pack
    pinned: Tensor | None

    def copy_to(self, buffer: Tensor) -> None:
        """Write their numbers into a buffer `(bytes,)` of uint8, laid out as `pack` has it."""
        ...

    def on(self, device: torch.device) -> Tensor:
        """A new buffer with their numbers. A copy also where device and home are one memory."""
        ...

    def take_back(self) -> None:
        """Let the tensors live here again; nothing is copied, for they have not changed."""
        ...

    def give_back(self) -> None:
        """Leave the tensors to themselves: in memory of their own, or in their files."""
        ...


class Homes:
    """Gives tensors a home that is not on the device.

    Args:
        pinned: lock it in memory, so that a GPU can fetch it by itself. Where that is refused, or would waste
            more than a quarter, it is plain.
        files: let weights wait in files, which nothing but the system's page cache keeps in memory: in those that they
            were read from, if they lie there as they are computed with, else in new ones. New ones have no name: they
            are gone with the last tensor in them, and with the process, however it ends. (Windows does not let go of
            the name of a file in use: there they are removed at `close`, if no tensor lives in them any more.)
        folder: for the new files; `None` is the system's folder for temporary ones.
    """

    def __init__(self, *, pinned: bool = False, files: bool = False, folder: str | None = None) -> None:
        self._pinned = pinned
        self._count = 0
        self._folder: Path | None = None
        if files:
            try:
                self._folder = Path(tempfile.mkdtemp(prefix="easyanimate-", dir=folder))
            except OSError as error:
                raise ExecutionError(
                    f"weights cannot be kept in '{folder or tempfile.gettempdir()}': {error.strerror}",
                    'Name a folder of yours: --offload \'{"name": "stream", "source": "disk", "folder": "FOLDER"}\'.',
                ) from error
            # Also when nobody says that it is over. After a kill an empty folder is left.
            self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def make(self, tensors: Sequence[Tensor]) -> Home:
        """A home for tensors that come and go together; they are there afterwards.

        Raises:
            ExecutionError: the disk is full.
        """
        if self._folder is None:
            return _Packed(Pack(tensors), self._memory)
        for tensor in tensors:
            self.keep(tensor)
        return _Loose(Pack(tensors))

    def keep(self, tensor: Tensor) -> Tensor:
        """The same tensor, waiting in a file; see `placing.Keep`.

        Raises:
            ExecutionError: the disk is full.
        """
        # Memory that torch did not allocate is a file's: the checkpoint's, or one that was made for this.
        if tensor.nbytes >= _PAGE and tensor.untyped_storage().resizable():
            pack = Pack([tensor])
            pack.fill(self._mapped(pack.nbytes))
        return tensor

    def _memory(self, nbytes: int) -> Tensor:
        return pinned(nbytes) if self._pinned and _rounded_up(nbytes) * 4 <= nbytes * 5 else plain(nbytes)

    def _mapped(self, nbytes: int) -> Tensor:
        assert self._folder is not None
        path = self._folder / f"{self._count}.weights"
        self._count += 1
        try:
            with path.open("wb") as file:
                # Room that is only promised would be found missing in the middle of a copy, which ends the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, nbytes)
                file.truncate(nbytes)
            mapped = torch.from_file(str(path), shared=True, size=nbytes, dtype=torch.uint8)
        except (OSError, RuntimeError) as error:
            raise ExecutionError(
                f"'{path.parent}' has no room for {written_bytes(nbytes)} of weights", "Name another folder."
            ) from error
        with suppress(OSError):  # Windows keeps the name of a mapped file
            path.unlink()
        return mapped

    def close(self) -> None:
        """Remove the folder. Tensors stay in their files, which need no name."""
        if self._folder is not None:
            self._remove()
            self._folder = None


class _Packed:
    """One buffer in main memory."""

    def __init__(self, pack: Pack, memory: Callable[[int], Tensor]) -> None:
        self.pack, self._buffer = pack, memory(pack.nbytes)
        pack.fill(self._buffer)
        self.pinned = self._buffer if self._buffer.is_pinned() else None

    def copy_to(self, buffer: Tensor) -> None:
        buffer[: self.pack.nbytes].copy_(self._buffer)

    def on(self, device: torch.device) -> Tensor:
        return self._buffer.to(device, non_blocking=True, copy=True)

    def take_back(self) -> None:
        self.pack.bind(self._buffer)

    def give_back(self) -> None:
        self.pack.unbind()


class _Loose:
    """Each tensor where it lies, in a file that is mapped."""

    pinned: Tensor | None = None

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self._values = pack.values()

    def copy_to(self, buffer: Tensor) -> None:
        self.pack.gather(self._values, buffer)

    def on(self, device: torch.device) -> Tensor:
        buffer = torch.empty(self.pack.nbytes, dtype=torch.uint8, device=device)
        self.copy_to(buffer)
        return buffer

    def take_back(self) -> None:
        self.pack.restore(self._values)

    def give_back(self) -> None:
        self.take_back()  # and no copy: main memory may not have the room


def pinned(nbytes: int) -> Tensor:
    """A buffer `(bytes,)` of uint8 that a GPU fetches by itself; a plain one where the system refuses."""
    try:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:
        return plain(nbytes)  # locked memory is limited on some systems; copies are then slower, not wrong


def plain(nbytes: int) -> Tensor:
    """A buffer `(bytes,)` of uint8."""
    return torch.empty(nbytes, dtype=torch.uint8)


def _rounded_up(nbytes: int) -> int:
    """What torch takes for a pinned buffer: the next power of two."""
    return 1 << max(nbytes - 1, 0).bit_length()
