"""What pydantic found wrong, said in one line: the setting, its value in quotes, and a hint."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from easyanimate_core.errors import ConfigError, InvalidOptions

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["describe", "did_you_mean", "invalid"]

_REASONS: Final = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`"Did you mean 'euler'?"` for a near miss among `known` (case does not matter), else an empty string."""
    by_key = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), by_key, n=1, cutoff=0.6)
    return f"Did you mean '{by_key[near[0]]}'?" if near else ""


def describe(error: ValidationError) -> tuple[str, str]:
    """The first thing that is wrong as a one-line message, and a hint that also names the others.

    The hint may be empty.
    """
    first, *others = error.errors(include_url=False)
    message, hint = _describe_one(first)
    paths = list(dict.fromkeys(_path(other) for other in others if _path(other) != _path(first)))
    if paths:
        named = ", ".join(f"'{path}'" for path in paths)
        hint = f"{hint} Also wrong: {named}.".lstrip()
    return message, hint


def invalid(error: ValidationError, kind: type[ConfigError] = InvalidOptions, *, of: str = "") -> ConfigError:
    """An SDK error that says what `describe` says.

    Args:
        error: what pydantic raised.
        kind: class of the new error.
        of: what was being read, put in front: `"preset 'nano'"`.
    """
    message, hint = describe(error)
    return kind(f"{of}: {message}" if of else message, hint)


def _describe_one(found: ErrorDetails) -> tuple[str, str]:
    path, kind = _path(found), found["type"]
    context: dict[str, Any] = found.get("ctx", {})
    if kind == "missing":
        return f"'{path}' is missing", ""
    if kind == "unknown_setting":
        return f"'{path}' is not a setting, but it was given {_quoted(found['input'])}", str(context["hint"])
    reason = _REASONS.get(kind)
    if reason is not None:
        said = reason.format(**{name: _plain(limit) for name, limit in context.items()})
    elif kind in ("value_error", "assertion_error"):
        said = str(context.get("error", found["msg"]))
    else:
        said = found["msg"][:1].lower() + found["msg"][1:]
    if not path and kind == "value_error":
        return said, str(context.get("hint", ""))  # two settings that do not go together: it says which
    subject = f"'{path}' is {_quoted(found['input'])}" if path else f"the value is {_quoted(found['input'])}"
    return f"{subject}: {'it ' if said.startswith('must') else ''}{said}", str(context.get("hint", ""))


def _path(found: ErrorDetails) -> str:
    """`("conditions", 0, "image")` as `conditions[0].image`."""
    path = ""
    for part in found["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _plain(limit: object) -> object:
    """Limits as people write them: 30, not 30.0."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _quoted(value: object) -> str:
    """A value in quotes on one line, shortened: prompts can be long."""
    text = " ".join(str(value).split())
    return f"'{text if len(text) <= 80 else text[:77] + '...'}'"
