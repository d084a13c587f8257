"""What a safetensors file says it holds, read without touching a tensor.

The header is checked against the file before anything trusts it: a truncated download, a length beyond the file,
overlapping tensors or a shape that does not fit its bytes are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from easyanimate_core.errors import CheckpointNotFound, UnsafeCheckpoint

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Header", "TensorInfo", "read_header"]

# The limit of the format's own reader; the largest released header has about 200 kB.
_MAX_HEADER_BYTES = 100_000_000

_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4,
}  # fmt: skip

_FLOATING: Final = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})

_REFETCH = "The file is damaged or was not made by safetensors. Fetch it again from where it came."


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file: its dtype as safetensors names it (`"BF16"`), its shape, and its bytes in the data part."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers that can be computed with (not those of block formats)."""
        return self.dtype in _FLOATING

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of a file, or of one component's files, by name; what a `Format` looks at.

    Attributes:
        path: the file, or the folder of the files.
        tensors: by the names that they are stored under.
        metadata: the text that the writer left beside them.
        config: the component's `config.json`; `None` when there is none.
        role: what the tensors shall become, `"denoiser"` or `"vae"`; empty when nobody knows.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    config: Mapping[str, Any] | None = None
    role: str = ""


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        CheckpointNotFound: there is no such file.
        UnsafeCheckpoint: the file is truncated, or its header contradicts itself or the file's size.
    """
    if not path.is_file():
        raise CheckpointNotFound(f"there is no file '{path}'", "Check the path of the checkpoint.")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
            raise UnsafeCheckpoint(f"'{path}' has {size} bytes and says that its header alone has {length}", _REFETCH)
        raw = file.read(length)
    entries = _parsed(raw, path)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnsafeCheckpoint(f"'{path}': the metadata is not text", _REFETCH)
    tensors = {name: _checked(name, entry, path) for name, entry in entries.items()}
    _check_layout(tensors, size - 8 - length, path)
    return Header(path, tensors, metadata)


def _parsed(raw: bytes, path: Path) -> dict[str, Any]:
    """The header's JSON object; every name at most once."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise UnsafeCheckpoint(f"'{path}': the header names a tensor twice", _REFETCH)
        return found

    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UnsafeCheckpoint(f"'{path}': the header is not JSON ({error})", _REFETCH) from None
    if not isinstance(entries, dict):
        raise UnsafeCheckpoint(f"'{path}': the header is not a JSON object", _REFETCH)
    return entries


def _checked(name: str, entry: Any, path: Path) -> TensorInfo:
    """One entry of the header, if its shape and dtype need exactly its bytes."""
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise UnsafeCheckpoint(f"'{path}': the entry of '{name}' is incomplete", _REFETCH) from None
    numbers = (*shape, start, stop)
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if not whole or not isinstance(dtype, str) or dtype not in _BITS:
        raise UnsafeCheckpoint(f"'{path}': the entry of '{name}' makes no sense: '{str(entry)[:100]}'", _REFETCH)
    if math.prod(shape) * _BITS[dtype] != 8 * (stop - start):
        raise UnsafeCheckpoint(
            f"'{path}': '{name}' is {dtype} {list(shape)} and yet has {stop - start} bytes", _REFETCH
        )
    return TensorInfo(dtype, shape, start, stop)


def _check_layout(tensors: Mapping[str, TensorInfo], data_bytes: int, path: Path) -> None:
    """Refuse gaps, overlaps and a data part that ends too early or too late."""
    at = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != at:
            raise UnsafeCheckpoint(f"'{path}': '{name}' starts at byte {info.start} instead of {at}", _REFETCH)
        at = info.stop
    if at != data_bytes:
        raise UnsafeCheckpoint(f"'{path}' holds {data_bytes} bytes of tensors, its header says {at}", _REFETCH)
