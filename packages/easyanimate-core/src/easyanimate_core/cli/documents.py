"""Documents from files and `--set`: what `generate` and every plugin's command read their settings from."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from easyanimate_core.errors import InvalidOptions

__all__ = ["assign", "is_document", "read_document"]


def is_document(text: str) -> bool:
    """Whether an argument names a job file and is no prompt: it ends with `.toml` or `.json`."""
    return text.lower().endswith((".toml", ".json"))


def read_document(path: str | Path) -> dict[str, Any]:
    """Read a TOML or JSON file; the suffix says which.

    Raises:
        InvalidOptions: the file is missing, cannot be read, is not UTF-8, not valid, or not a table.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InvalidOptions(f"cannot read '{path}': {error.strerror}", "Give the path of a job file.") from error
    except ValueError as error:  # both decoders' errors, and text that is not UTF-8
        raise InvalidOptions(f"'{path}' is not valid: {error}", "Correct the file.") from error
    if not isinstance(data, dict):
        raise InvalidOptions(f"'{path}' holds no settings", "Write them as one JSON object.")
    return data


def assign(document: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of a document with settings such as `sampler.shift=3` put in.

    Args:
        document: what is there already.
        settings: `path=value`. A path's parts are keys, or numbers in lists; missing tables are made, and a
            component that was only named (`sampler = "flow"`) becomes a table with that name. A value is JSON
            (`3`, `true`, `[1, 2]`, `"3"`); anything else is text.

    Raises:
        InvalidOptions: a setting without `=`, or a path that leads through a plain value.
    """
    result: dict[str, Any] = copy.deepcopy(dict(document))
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not all(path.split(".")):
            raise InvalidOptions(f"'{setting}' is no setting", "Write it as --set sampler.shift=3.")
        _put(result, path.split("."), _value(value), setting)
    return result


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _put(table: dict[str, Any] | list[Any], path: list[str], value: Any, setting: str) -> None:
    """Walk to the last table of a path, making what is missing, and put the value there."""
    for part, following in zip(path, [*path[1:], None], strict=True):
        index = _index(table, part, setting)
        if following is None:
            table[index] = value
            return
        inner = table[index]
        if inner is None:
            inner = [] if following.isdecimal() else {}
        elif isinstance(inner, str):
            inner = {"name": inner}
        if not isinstance(inner, dict | list):
            raise InvalidOptions(f"'{setting}' leads through '{part}', which is '{inner}'", "Shorten the path.")
        table[index] = inner
        table = inner


def _index(table: dict[str, Any] | list[Any], part: str, setting: str) -> Any:
    """The key or number of a part; a place for it exists afterwards."""
    if isinstance(table, dict):
        table.setdefault(part, None)
        return part
    if not part.isdecimal() or int(part) > len(table):
        raise InvalidOptions(f"'{setting}' has '{part}' where a list needs a number", f"Use 0 to {len(table)}.")
    if int(part) == len(table):
        table.append(None)
    return int(part)
