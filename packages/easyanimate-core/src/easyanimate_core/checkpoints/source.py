"""Where a checkpoint is: its folder, its components' folders, their configs and weight files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound, UnsafeCheckpoint

__all__ = ["component_folder", "read_json", "resolve", "weight_files"]

# In the order in which a folder is searched; an index goes before a single file of the same stem.
_STEMS = ("diffusion_pytorch_model", "model")


def resolve(weights: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
        weights: path of a folder with `transformer/`, `vae/`, `scheduler/` … as released.

    Raises:
        CheckpointNotFound: there is no such folder.
    """
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        raise CheckpointNotFound(
            f"there is no checkpoint folder '{weights}'",
            "Give the folder that holds transformer/, vae/, scheduler/, text_encoder/ and tokenizer/.",
        )
    return folder


def component_folder(folder: Path, *names: str) -> tuple[Path, ...]:
    """The folders of components, all checked at once.

    Raises:
        CheckpointNotFound: some are missing; the message lists which, the hint what is expected.
    """
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise CheckpointNotFound(
            f"the checkpoint '{folder}' has no {', '.join(f'{name}/' for name in missing)}",
            f"A folder of this model holds {', '.join(f'{name}/' for name in names)}. Was the download complete?",
        )
    return tuple(folder / name for name in names)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the checkpoint, such as `config.json`.

    Raises:
        CheckpointNotFound: there is no such file.
        CheckpointMismatch: it is not a JSON object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointNotFound(f"there is no file '{path}'", "Was the download complete?") from None
    except ValueError as error:
        raise CheckpointMismatch(f"'{path}' is not JSON ({error})", "Fetch the file again.") from None
    if not isinstance(value, dict):
        raise CheckpointMismatch(f"'{path}' is not a JSON object", "Fetch the file again.")
    return value


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of one component: the shards of an index, one file, or all that are there.

    Raises:
        CheckpointNotFound: there is none, or a shard is missing.
        UnsafeCheckpoint: the index points out of the folder.
    """
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return _shards(index)
        single = folder / f"{stem}.safetensors"
        if single.is_file():
            return (single,)
    found = tuple(sorted(folder.glob("*.safetensors")))
    if not found:
        raise CheckpointNotFound(
            f"'{folder}' holds no weights",
            f"Expected {_STEMS[0]}.safetensors or {_STEMS[1]}.safetensors, in one file or in shards with an index.",
        )
    return found


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names, each once, in their order by name."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointMismatch(f"'{index}' has no weight_map", "Fetch the file again.")
    files = []
    for name in sorted({str(value) for value in weight_map.values()}):
        # Only plain names: an index from the internet must not make us read outside its folder.
        if name != Path(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise UnsafeCheckpoint(f"'{index}' names the file '{name}'", "Shards lie beside their index.")
        if not (index.parent / name).is_file():
            raise CheckpointNotFound(f"the shard '{name}' of '{index}' is missing", "Was the download complete?")
        files.append(index.parent / name)
    return tuple(files)
