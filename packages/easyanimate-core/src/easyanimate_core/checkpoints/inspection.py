"""What a checkpoint, a component or a LoRA file is, told from headers alone."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easyanimate_core.checkpoints.archive import PICKLED, Archive
from easyanimate_core.checkpoints.convert import COMPONENTS
from easyanimate_core.checkpoints.detect import recognise
from easyanimate_core.checkpoints.header import Header
from easyanimate_core.checkpoints.lora import read_lora
from easyanimate_core.checkpoints.lora.names import part_of
from easyanimate_core.checkpoints.releases import describe_nearest
from easyanimate_core.checkpoints.source import parts, read_json, weight_files
from easyanimate_core.errors import CheckpointNotFound, UnknownFormat

__all__ = ["Inspected", "hash_files", "inspect", "weight_folders"]


@dataclass(frozen=True, slots=True)
class Inspected:
    """One component, or one file.

    Attributes:
        name: folder or file.
        layout: name of the format; empty for what only another library reads (text encoders).
        files: how many files hold it.
        tensors: how many tensors.
        parameters: numbers in all of them.
        bytes: on disk.
        dtypes: number of tensors by type.
        remark: which release it is of, or what is particular about it.
        details: JSON-able.
    """

    name: str
    layout: str
    files: int
    tensors: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]
    remark: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def inspect(path: Path) -> tuple[Inspected, ...]:
    """All components of a checkpoint's folder, or the one thing that a folder or file is.

    Raises:
        CheckpointNotFound: there is nothing.
        CheckpointError: a file is damaged or unsafe.
    """
    if path.is_file():
        return (_inspected(path.name, (path,), {}),)
    if not path.is_dir():
        raise CheckpointNotFound(f"there is no file or folder '{path}'", "Give a checkpoint, a component or a file.")
    folders = tuple(weight_folders(path))
    return tuple(
        _inspected(name, weight_files(folder), _config(folder), COMPONENTS.get(name, "")) for name, folder in folders
    )


def weight_folders(path: Path) -> Iterator[tuple[str, Path]]:
    """Name and place of each component that has weights: the folder itself, or those in it.

    Raises:
        CheckpointNotFound: there is none.
    """

    def holds(folder: Path) -> bool:
        return any(folder.glob("*.safetensors")) or any(file.suffix in PICKLED for file in folder.iterdir())

    if not path.is_dir():
        raise CheckpointNotFound(f"there is no file or folder '{path}'", "Give a checkpoint, a component or a file.")
    if holds(path):
        yield path.name, path
        return
    found = {name: part for name, part in sorted(parts(path).items()) if not name.startswith(".") and holds(part)}
    if not found:
        raise CheckpointNotFound(f"'{path}' holds no weights", "Give a checkpoint's folder, a component's, or a file.")
    yield from found.items()


def hash_files(path: Path) -> Iterator[tuple[Path, str]]:
    """SHA-256 of a file, or of all files that hold weights, in their order by name.

    Raises:
        CheckpointNotFound: there is nothing.
    """
    if path.is_file():
        files: tuple[Path, ...] = (path,)
    elif path.is_dir():
        files = tuple(file for _, folder in weight_folders(path) for file in weight_files(folder))
    else:
        raise CheckpointNotFound(f"there is no file or folder '{path}'", "Check the path.")
    for file in files:
        with file.open("rb") as opened:
            yield file, hashlib.file_digest(opened, "sha256").hexdigest()


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return {k: v for k, v in read_json(path).items() if not k.startswith("_")} if path.is_file() else {}


def _inspected(name: str, files: tuple[Path, ...], config: Mapping[str, Any], role: str = "") -> Inspected:
    with Archive(files, config=config, role=role) as archive:
        header = archive.header
        layout, remark, details = _told(header, files)
        infos = header.tensors.values()
        return Inspected(
            name,
            layout,
            len(files),
            len(header.tensors),
            sum(math.prod(info.shape) for info in infos),
            sum(info.bytes for info in infos),
            dict(sorted(Counter(info.dtype for info in infos).items())),
            remark,
            {**details, "metadata": dict(header.metadata)},
        )


def _told(header: Header, files: tuple[Path, ...]) -> tuple[str, str, dict[str, Any]]:
    """Layout, remark and details."""
    if len(files) == 1 and any(part_of(name) for name in header.tensors):
        lora = read_lora(files[0])
        ranks = sorted({part.rank for part in lora.layers.values()})
        said = f"LoRA of {len(lora.layers)} layers, rank {', '.join(map(str, ranks))}"
        return lora.layout, said, {"layers": len(lora.layers), "ranks": ranks}
    try:
        found = recognise(header)
    except UnknownFormat:
        return "", "", {}
    keymap = found.keymap()
    made = keymap.prove({name: info.shape for name, info in header.tensors.items() if name not in keymap.dropped})
    return found.name, describe_nearest(made), {}
