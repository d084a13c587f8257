"""What a run is made of: files of the checkpoint, files of the request, versions. Loads no torch."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel

from easyanimate_core.checkpoints.hub import file_of
from easyanimate_core.checkpoints.source import parts
from easyanimate_core.errors import CheckpointNotFound
from easyanimate_core.schema import Choice, Hint

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from easyanimate_core.request import GenerationRequest

__all__ = ["from_folder", "input_files", "versions_here", "weight_files"]

M = TypeVar("M", bound=BaseModel)

_LIBRARIES: Final = ("easyanimate-core", "torch", "diffusers", "transformers", "av")
_PARTS: Final = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
_WEIGHTS_FIELD: Final = "weights"
_IDS: Final = (_WEIGHTS_FIELD, "path")  # of the request, and of a LoRA: these may name a repository


def weight_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint in its released layout, by the names that they have there, in order."""
    places = {name: place for name, place in sorted(parts(folder).items()) if name in _PARTS}
    return {
        f"{name}/{path.relative_to(place).as_posix()}": path
        for name, place in places.items()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def input_files(request: GenerationRequest) -> list[tuple[str, Path]]:
    """Files that a request names besides its weights, as it names them and as paths; of a folder, all in it."""
    named = (name for name in _media(request) if name)
    downloaded = {lora.path for lora in request.loras if not Path(lora.path).expanduser().exists()}
    found: dict[Path, str] = {}
    for name in named:
        path = _download(name) if name in downloaded else Path(name).expanduser()
        if path.is_file():
            found[path] = name
        elif path.is_dir():
            found |= {file: file.as_posix() for file in sorted(path.rglob("*")) if file.is_file()}
    return [(name, path) for path, name in found.items()]


def from_folder(request: GenerationRequest, folder: Path) -> GenerationRequest:
    """The request as it reads elsewhere: relative paths of its files become absolute.

    Ids of repositories stay as they are.

    Args:
        request: with paths that begin in the folder.
        folder: absolute.
    """
    return _moved(request, folder)


def versions_here() -> dict[str, str]:
    """Versions of what computes, and where it does."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _download(name: str) -> Path:
    """The file of a LoRA that is named by its repository; where nothing is, when it is not on this machine."""
    from easyanimate_core.checkpoints.lora import locate_lora  # costs torch

    try:
        return locate_lora(name)
    except CheckpointNotFound:
        return Path(name)


def _media(model: BaseModel) -> Iterator[str]:
    """Values of all fields that are hinted to be files, at any depth."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if _is_media(info) and name != _WEIGHTS_FIELD:
            yield from (str(item) for item in _items(value) if isinstance(item, str | Path))
        for item in _items(value):
            inner = item.options if isinstance(item, Choice) else item
            if isinstance(inner, BaseModel):
                yield from _media(inner)


def _moved(model: M, folder: Path) -> M:
    """A document with the paths of all its files in a folder, at any depth."""
    changes: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        moved = _moved_value(value, folder, media=_is_media(info), id_too=name in _IDS)
        if moved is not value:
            changes[name] = moved
    return model.model_copy(update=changes) if changes else model


def _moved_value(value: Any, folder: Path, *, media: bool, id_too: bool) -> Any:
    if isinstance(value, tuple):
        moved = tuple(_moved_value(item, folder, media=media, id_too=id_too) for item in value)
        return value if all(new is old for new, old in zip(moved, value, strict=True)) else moved
    if isinstance(value, Choice):
        options = _moved(value.options, folder) if value.options is not None else None
        return value if options is value.options else replace(value, options=options)
    if isinstance(value, BaseModel):
        return _moved(value, folder)
    if not (media and isinstance(value, str) and value) or Path(value).expanduser().is_absolute():
        return value
    is_id = id_too and not (folder / value).exists() and file_of(value) is not None
    return value if is_id else str(folder / value)


def _is_media(info: FieldInfo) -> bool:
    return any(isinstance(said, Hint) and said.media for said in info.metadata)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else (value,)
