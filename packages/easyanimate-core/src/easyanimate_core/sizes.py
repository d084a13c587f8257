"""Numbers of bytes, as people write and read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

__all__ = ["GIB", "Bytes", "parse_bytes", "written_bytes"]

GIB: Final = 1 << 30
"""Bytes in one GiB."""

_UNITS: Final[Mapping[str, int]] = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
_WRITTEN: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?b?)\s*", re.IGNORECASE)


def parse_bytes(value: Any) -> Any:
    """`"8GiB"` (2³⁰), `"24GB"` (10⁹) or a number to bytes; other things as they are.

    Raises:
        ValueError: a text that is not a number and a unit.
    """
    if not isinstance(value, str):
        return value
    found = _WRITTEN.fullmatch(value)
    unit = found[2].casefold() if found else ""
    if found is None or unit not in _UNITS:
        raise ValueError("must be a number of bytes with a unit, such as 8GiB or 24GB")
    return round(float(found[1]) * _UNITS[unit])


def written_bytes(count: float) -> str:
    """Bytes for people, in GiB, MiB or, where that would be nothing, bytes: `7.26 GiB`."""
    if count < 1 << 17:
        return f"{count:.0f} bytes"
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.1f} MiB"


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _WRITTEN.pattern}]}),
]
"""A number of bytes that may be written `"8GiB"`."""
