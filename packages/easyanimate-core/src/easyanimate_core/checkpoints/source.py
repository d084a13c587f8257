"""Where a checkpoint is: its folder, its components' folders, their configs and weight files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from easyanimate_core.checkpoints.archive import PICKLED
from easyanimate_core.checkpoints.hub import cached, repo_of
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound, UnknownFormat, UnsafeCheckpoint

__all__ = ["SHARED", "component_files", "component_folder", "parts", "read_json", "resolve", "weight_files"]

# In the order in which a folder is searched: safetensors before pickles, an index before a single file.
_SAFE: Final = ("diffusion_pytorch_model", "model")
_NAMES: Final = tuple(
    (stem, suffix) for suffix, stems in ((".safetensors", _SAFE), (".bin", (*_SAFE, "pytorch_model"))) for stem in stems
)
# What downloaders put behind a file's name until it is whole.
_UNFINISHED: Final = (".incomplete", ".part", ".aria2", ".crdownload", ".download")

SHARED: Final = "shared.json"
"""File of a checkpoint that lacks some components: `{"folder": "nano"}` names the checkpoint beside it that has them.
Models of one family then keep a VAE and a text encoder once."""


def resolve(weights: str | Path) -> Path:
    """The folder of a checkpoint. Asks no network.

    Args:
        weights: path of a folder with `transformer/`, `vae/`, `scheduler/` … as released, or the id of a repository
            that has been downloaded: `owner/name` on Hugging Face, `modelscope:owner/name` on ModelScope.

    Raises:
        CheckpointNotFound: there is no such folder, or nothing of this id in the cache.
    """
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        if folder.is_file():
            raise CheckpointNotFound(
                f"'{weights}' is a file, a checkpoint is a folder",
                "For one component of the model: --transformer-path FILE or --vae-path FILE.",
            )
        if (repo := repo_of(str(weights))) is not None:
            if (found := cached(repo)) is not None:
                return found
            raise CheckpointNotFound(
                f"'{weights}' is neither a folder here nor in the cache of downloads",
                f"Download it: easyanimate models pull {repo}",
            )
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
    found = parts(folder)
    missing = [name for name in names if name not in found]
    if missing:
        raise CheckpointNotFound(
            f"the checkpoint '{folder}' has no {', '.join(f'{name}/' for name in missing)}",
            f"A folder of this model holds {', '.join(f'{name}/' for name in names)}. Was the download complete?",
        )
    return tuple(found[name] for name in names)


def parts(folder: Path) -> Mapping[str, Path]:
    """All components of a checkpoint by name: its own folders, then those that `SHARED` adds.

    Raises:
        CheckpointNotFound: the checkpoint that it shares components with is not beside it.
        UnsafeCheckpoint: `SHARED` leads anywhere else.
    """
    own = {part.name: part for part in sorted(folder.iterdir()) if part.is_dir()} if folder.is_dir() else {}
    if not (folder / SHARED).is_file():
        return own
    name = str(read_json(folder / SHARED).get("folder", ""))
    # Only a plain name: a file from the internet must not make us read elsewhere.
    if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
        raise UnsafeCheckpoint(f"'{folder / SHARED}' names the folder '{name}'", "It must lie beside this one.")
    beside = folder.resolve().parent / name
    if not beside.is_dir():
        raise CheckpointNotFound(
            f"'{folder}' shares components with '{beside}', which is not there", "Keep both folders side by side."
        )
    return {part.name: part for part in sorted(beside.iterdir()) if part.is_dir()} | own


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
    """The weight files of one component: the shards of an index, one file, or all safetensors that are there.

    safetensors go before pickled files. A link may lead to another file of the folder or into the blobs of the hub's
    cache, and nowhere else.

    Raises:
        CheckpointNotFound: there is none, a shard is missing, or a download is not finished.
        UnsafeCheckpoint: an index or a link points out of the folder.
    """
    for stem, suffix in _NAMES:
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            return _checked(folder, _shards(index))
        single = folder / f"{stem}{suffix}"
        if single.is_file() or single.is_symlink():
            return _checked(folder, (single,))
    found = tuple(sorted(folder.glob("*.safetensors")))
    if found:
        return _checked(folder, found)
    if started := next((path for path in sorted(folder.glob("*")) if path.suffix in _UNFINISHED), None):
        raise _half(started)
    raise CheckpointNotFound(
        f"'{folder}' holds no weights",
        f"Expected {_SAFE[0]}.safetensors or {_SAFE[1]}.safetensors, in one file or in shards with an index.",
    )


def component_files(path: Path, part: str) -> tuple[tuple[Path, ...], Path | None]:
    """The weight files of a component that was given by itself, and its folder if it has a `config.json` there.

    Args:
        path: a weight file, a component's folder, or a whole checkpoint's folder.
        part: the component's folder in a checkpoint, such as `"transformer"`.

    Raises:
        CheckpointNotFound: there is no such file or folder.
        UnknownFormat: the file is neither safetensors nor pickled tensors.
    """
    if path.is_file():
        if path.suffix not in PICKLED | {".safetensors"}:
            raise UnknownFormat(
                f"'{path}' is no file of weights", f"Known: .safetensors, {', '.join(sorted(PICKLED))}."
            )
        return _checked(path.parent, (path,), linked=True), None
    if not path.is_dir():
        raise CheckpointNotFound(f"there is no file or folder '{path}'", "Give a weight file, or its folder.")
    folder = path / part if (path / part).is_dir() else path
    return weight_files(folder), folder if (folder / "config.json").is_file() else None


def _checked(folder: Path, files: tuple[Path, ...], *, linked: bool = False) -> tuple[Path, ...]:
    """The files, if each is whole and where it says; `linked` allows the user's own link to a file."""
    homes = [folder.resolve(), *_blobs(folder)]
    for file in files:
        if started := next((found for end in _UNFINISHED if (found := file.with_name(file.name + end)).exists()), None):
            raise _half(started)
        try:
            real = file.resolve(strict=True)
            # The hub's client may share blobs between repositories by links of its own.
            first = (file.parent / file.readlink()).parent.resolve() if file.is_symlink() else real
        except (OSError, RuntimeError):  # a loop is the one or the other, by the Python version
            raise CheckpointNotFound(f"'{file}' is a link to nothing", "Was the download complete?") from None
        if not linked and first not in _blobs(folder) and not any(real.is_relative_to(home) for home in homes):
            raise UnsafeCheckpoint(
                f"'{file}' is a link to '{real}', out of its folder",
                "Move the file itself there, or name it: --transformer-path FILE, --vae-path FILE.",
            )
        if not real.is_file():
            raise CheckpointNotFound(f"'{file}' is no file", "Was the download complete?")
    return files


def _blobs(folder: Path) -> list[Path]:
    """Where the hub's cache keeps the files that `…/snapshots/<revision>/…` links to."""
    snapshots = [parent for parent in folder.absolute().parents if parent.name == "snapshots"]
    return [(parent.parent / "blobs").resolve() for parent in snapshots if (parent.parent / "blobs").is_dir()]


def _half(started: Path) -> CheckpointNotFound:
    return CheckpointNotFound(f"'{started}' is half a download", "Finish it: easyanimate models pull NAME.")


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names, each once, in their order by name."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointMismatch(f"'{index}' has no weight_map", "Fetch the file again.")
    files = []
    for name in sorted({str(value) for value in weight_map.values()}):
        # Only plain names: an index from the internet must not make us read outside its folder.
        if name != Path(name).name or "\\" in name or not name.endswith(index.name.split(".")[-3]):
            raise UnsafeCheckpoint(f"'{index}' names the file '{name}'", "Shards lie beside their index.")
        if not (index.parent / name).is_file():
            raise CheckpointNotFound(f"the shard '{name}' of '{index}' is missing", "Was the download complete?")
        files.append(index.parent / name)
    return tuple(files)
