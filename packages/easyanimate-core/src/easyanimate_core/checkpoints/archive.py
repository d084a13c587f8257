"""One component's tensors on disk, read one at a time, whatever kind of file and however many.

safetensors is preferred. Pickled files (`.bin`, `.pth`, `.pt`, `.ckpt`) are read by `torch.load(weights_only=True)`
alone: a file that would run code is refused, and nothing of it is run.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from easyanimate_core.checkpoints.header import Header, TensorInfo, read_header
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound, UnsafeCheckpoint

__all__ = ["PICKLED", "Archive", "read_pickled"]

PICKLED: Final = frozenset({".bin", ".pth", ".pt", ".ckpt"})
"""Suffixes of files that torch pickled."""

_NAMES: Final = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32",
    torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
}  # fmt: skip
_WRAPPERS: Final = ("state_dict", "module")


class Archive:
    """The tensors of one component. A context manager: files are open inside.

    ```python
    with Archive(files) as archive:
        tensor = archive.read("proj.weight")
    ```

    Args:
        files: one file, or the shards of one component; safetensors or pickled.
        config: the component's `config.json`, for formats to look at.
        role: `"denoiser"` or `"vae"` when the reader knows what it wants, for formats to look at.

    Attributes:
        header: all tensors, checked against the files before anything is read.

    Raises:
        CheckpointNotFound: a file is not there.
        CheckpointMismatch: two files hold the same tensor.
        UnsafeCheckpoint: a file would run code, or lies about itself.
    """

    def __init__(self, files: Sequence[Path], *, config: Mapping[str, Any] | None = None, role: str = "") -> None:
        self._homes: dict[str, Path] = {}
        self._pickled: dict[str, Tensor] = {}
        self._open: Path | None = None
        self._reader: Any = None
        self._stack = ExitStack()
        tensors: dict[str, TensorInfo] = {}
        metadata: dict[str, str] = {}
        for file in files:
            if file.suffix in PICKLED:
                stored = read_pickled(file)
                found: Mapping[str, TensorInfo] = {name: _described(tensor) for name, tensor in stored.items()}
                self._pickled.update(stored)
            else:
                header = read_header(file)
                found = header.tensors
                metadata.update(header.metadata)
            self._claim(found, file)
            tensors.update(found)
        place = files[0] if len(files) == 1 else files[0].parent
        self.header = Header(place, tensors, metadata, config, role)

    def _claim(self, names: Mapping[str, TensorInfo], file: Path) -> None:
        for name in names:
            if name in self._homes:
                raise CheckpointMismatch(
                    f"'{name}' is stored in '{self._homes[name].name}' and in '{file.name}'",
                    "Remove leftover files of another download from the folder.",
                )
            self._homes[name] = file

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read(self, name: str) -> Tensor:
        """One tensor as stored, on the CPU; may be a window into the file.

        Raises:
            UnsafeCheckpoint: the file changed since its header was read, or holds a type that torch does not have.
        """
        if name in self._pickled:
            return self._pickled[name]
        path = self._homes[name]
        try:
            if path != self._open:
                # One shard at a time: what is mapped counts as memory.
                self._close()
                self._reader = self._stack.enter_context(safe_open(path, framework="pt", device="cpu"))
                self._open = path
            tensor: Tensor = self._reader.get_tensor(name)
        except (SafetensorError, OSError, KeyError, AttributeError, RuntimeError) as error:
            what = f"'{name}' in '{path}' cannot be read as {self.header.tensors[name].dtype}: {error}"
            raise UnsafeCheckpoint(" ".join(what.split()), "Fetch the file again.") from error
        return tensor

    def _close(self) -> None:
        self._stack.close()
        self._open = self._reader = None

    def home(self, name: str) -> Path:
        """The file that a tensor is in."""
        return self._homes[name]


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch pickled, without running anything in it.

    Raises:
        CheckpointNotFound: there is no such file.
        CheckpointMismatch: it holds something other than tensors by name.
        UnsafeCheckpoint: it would run code, or is damaged.
    """
    if not path.is_file():
        raise CheckpointNotFound(f"there is no file '{path}'", "Check the path of the checkpoint.")
    try:
        # Mapped, so that a tensor takes memory when it is read; the format before zip cannot be.
        mapped = zipfile.is_zipfile(path)
        stored: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpoint(
            f"'{path}' holds more than tensors and would run code when loaded; nothing was run",
            "Ask its author for a safetensors file.",
        ) from error
    # torch raises whatever its reader stumbles over: a damaged archive, a wrong length, an unknown storage.
    except (RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        first = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise UnsafeCheckpoint(f"'{path}' cannot be read: {first}", "The file is damaged. Fetch it again.") from error
    for wrapper in _WRAPPERS:
        if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
            stored = stored[wrapper]
    if not isinstance(stored, dict) or not stored:
        raise CheckpointMismatch(f"'{path}' holds no tensors by name", "Give the file of a state dict.")
    for name, value in stored.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointMismatch(f"'{path}': '{name}' is no tensor", "Give the file of a state dict.")
    return dict(stored)


def _described(tensor: Tensor) -> TensorInfo:
    """What a safetensors header would say about a tensor."""
    return TensorInfo(_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), 0, tensor.nbytes)
