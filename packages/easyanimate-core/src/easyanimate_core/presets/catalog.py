"""Finds presets among what is installed. A preset is a TOML file, read when it is asked for.

A plugin adds one with `registrar.add("presets", "my-model", "my_package:presets/my-model.toml")`.
"""

from __future__ import annotations

import tomllib

from easyanimate_core.errors import InvalidOptions
from easyanimate_core.plugins import active
from easyanimate_core.presets.model import Preset
from easyanimate_core.schema import parse
from easyanimate_core.slots import PRESETS

__all__ = ["all_presets", "find_preset"]


def find_preset(name: str) -> Preset:
    """The preset of this name, or of this released folder's name; case does not matter.

    Raises:
        UnknownComponent: there is none; the hint names a near miss.
        InvalidOptions: its file is not a valid preset.
    """
    registry = active().registries[PRESETS]
    entry, text = registry.get(name), registry.resource(name).read_text(encoding="utf-8")
    described = f"preset '{entry.qualified}'"
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidOptions(f"{described}: {error}", f"Correct the file behind '{entry.target}'.") from error
    return parse(Preset, {"name": entry.name, **data}, of=described)


def all_presets() -> tuple[Preset, ...]:
    """All presets, in order of registration.

    Raises:
        InvalidOptions: a file is not a valid preset.
    """
    return tuple(find_preset(entry.qualified) for entry in active().registries[PRESETS])
