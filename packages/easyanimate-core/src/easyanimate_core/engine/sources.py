"""What a run is made of: files of the checkpoint, files of the request, versions. Loads no torch."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from easyanimate_core.schema import Choice, Hint

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from easyanimate_core.request import GenerationRequest

__all__ = ["input_files", "versions_here", "weight_files"]

_LIBRARIES: Final = ("easyanimate-core", "torch", "diffusers", "transformers", "av")
_PARTS: Final = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
_WEIGHTS_FIELD: Final = "weights"


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint in its released layout, in order."""
    parts = (folder / part for part in _PARTS)
    return sorted(path for part in parts if part.is_dir() for path in part.rglob("*") if path.is_file())


def input_files(request: GenerationRequest) -> list[tuple[str, Path]]:
    """Files that a request names besides its weights, as it names them and as paths; of a folder, all in it."""
    named = (name for name in _media(request) if name)
    found: dict[Path, str] = {}
    for name in named:
        path = Path(name).expanduser()
        if path.is_file():
            found[path] = name
        elif path.is_dir():
            found |= {file: file.as_posix() for file in sorted(path.rglob("*")) if file.is_file()}
    return [(name, path) for path, name in found.items()]


def versions_here() -> dict[str, str]:
    """Versions of what computes, and where it does."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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


def _is_media(info: FieldInfo) -> bool:
    return any(isinstance(said, Hint) and said.media for said in info.metadata)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else (value,)
