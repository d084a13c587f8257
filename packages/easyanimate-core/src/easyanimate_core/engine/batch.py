"""Batch files: many requests in one JSON Lines, CSV or TOML file, each checked by itself.

- `.jsonl`: one request per line, as a JSON object.
- `.csv`: a header with names of settings (`prompt`, `seed`, `sampler.shift`), one request per row; an empty cell says
  nothing. Crossed on demand, each column is a list of values.
- `.toml`: `[[jobs]]` tables; `[defaults]` holds for all.

Besides the fields of a request, an entry may have `output`, and lists under `vary`, which `combine = "zip"` pairs and
`combine = "product"` crosses: one request each. A TOML file may have `vary` and `combine` at its top, too.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

from easyanimate_core.errors import ConfigError, InvalidOptions
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import parse

__all__ = ["BatchEntry", "Combine", "read_batch"]

Combine = Literal["zip", "product"]
"""How lists of values become requests: the first with the first, or each with each."""

_SUFFIXES: Final = (".jsonl", ".csv", ".toml")
_TABLES: Final = ("combine", "defaults", "vary", "jobs")


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One request of a batch file.

    Attributes:
        place: where it stands: `line 3`, `line 3, job 2`, `job 2`.
        key: known again by, when the file is run another time: a digest of what the entry says, and a count of equal
            entries before it. Other entries may come, go or move meanwhile.
        request: what to make; `None` when the entry is wrong.
        output: where it goes, when the entry says so.
        error: what is wrong with it.
    """

    place: str
    key: str
    request: GenerationRequest | None
    output: str | None = None
    error: ConfigError | None = None


def read_batch(path: Path, combine: Combine | None = None) -> tuple[BatchEntry, ...]:
    """Read a batch file. What is wrong with one entry is said in that entry.

    Args:
        path: the file.
        combine: how lists of values combine, whatever the file says; of a CSV file, its columns.

    Raises:
        InvalidOptions: the file as a whole cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InvalidOptions(f"'{path.name}' is no batch file", f"Use one of {', '.join(_SUFFIXES)}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidOptions(f"cannot read '{path}': {error.strerror}", "Give the path of a batch file.") from error
    except ValueError as error:
        raise InvalidOptions(f"'{path}' is not UTF-8 text", "Save it as UTF-8.") from error
    documents = {".jsonl": _from_jsonl, ".csv": _from_csv, ".toml": _from_toml}[suffix](text, path, combine)
    seen: Counter[str] = Counter()
    return tuple(_entry(place, document, seen) for place, document in documents)


def _entry(place: str, document: Any, seen: Counter[str]) -> BatchEntry:
    """One entry, with its key."""
    error = document if isinstance(document, ConfigError) else None
    digest = hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:24]
    key = f"{digest}-{seen[digest]}"
    seen[digest] += 1
    if error is None and not isinstance(document, dict):
        error = InvalidOptions("the entry holds no settings", "Write them as one JSON object.")
    if error is not None:
        return BatchEntry(place, key, None, error=error)
    settings = dict(document)
    output = settings.pop("output", None)
    if not isinstance(output, str | None):
        return BatchEntry(place, key, None, error=InvalidOptions(f"output is '{output}'", "Give a path as text."))
    try:
        return BatchEntry(place, key, parse(GenerationRequest, settings), output)
    except ConfigError as wrong:
        return BatchEntry(place, key, None, output, wrong)


def _from_jsonl(text: str, path: Path, combine: Combine | None) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            document = json.loads(line)
        except ValueError as error:
            yield place, InvalidOptions(f"this is not JSON: {error}", "Write one JSON object per line.")
        else:
            yield from _spread(place, document, combine)


def _from_csv(text: str, path: Path, combine: Combine | None) -> Iterator[tuple[str, Any]]:
    rows = _rows(text, path)
    if combine != "product":
        yield from ((place, row if isinstance(row, ConfigError) else _nested(row)) for place, row in rows)
        return
    columns: dict[str, list[str]] = {}
    for place, row in rows:
        if isinstance(row, ConfigError):
            yield place, row
            continue
        for name, cell in row:
            columns.setdefault(name, []).extend([cell] if cell.strip() else [])
    given = {name: cells for name, cells in columns.items() if cells}
    crossed = itertools.product(*given.values()) if given else ()
    for number, cells in enumerate(crossed, start=1):
        yield f"job {number}", _nested(zip(given, cells, strict=True))


def _rows(text: str, path: Path) -> Iterator[tuple[str, list[tuple[str, str]] | ConfigError]]:
    """The rows of a CSV file as pairs of setting and cell."""
    reader = csv.reader(StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise InvalidOptions(f"'{path}' has no header", "Name the settings in its first row: prompt,seed.")
        for row in reader:
            place = f"line {reader.line_num}"
            if len(row) > len(header):
                yield place, InvalidOptions(f"the row has {len(row)} cells, the header {len(header)}", "Quote commas.")
            elif any(cell.strip() for cell in row):
                yield place, list(zip(header, row, strict=False))
    except csv.Error as error:
        raise InvalidOptions(f"'{path}' is not valid: line {reader.line_num}: {error}", "Correct the file.") from error


def _nested(cells: Iterable[tuple[str, str]]) -> dict[str, Any] | ConfigError:
    """`sampler.shift` = 3 to `{"sampler": {"shift": "3"}}`; types are read by the request itself."""
    document: dict[str, Any] = {}
    for path, cell in cells:
        if not cell.strip():
            continue
        *parents, name = path.split(".")
        table = document
        for parent in parents:
            inner = table.setdefault(parent, {})
            table[parent] = table = inner if isinstance(inner, dict) else {"name": inner}
        try:
            table[name] = json.loads(cell) if cell.lstrip().startswith(("{", "[")) else cell
        except ValueError as error:
            return InvalidOptions(f"'{path}' is '{cell}', which is not JSON: {error}", "Correct it, or quote it.")
    return document


def _from_toml(text: str, path: Path, combine: Combine | None) -> Iterator[tuple[str, Any]]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidOptions(f"'{path}' is not valid: {error}", "Correct the file.") from error
    if unknown := [name for name in document if name not in _TABLES]:
        raise InvalidOptions(f"'{path}' has '{unknown[0]}' at its top", f"Known: {', '.join(_TABLES)}.")
    defaults, jobs = document.get("defaults", {}), document.get("jobs", [])
    if not isinstance(defaults, dict) or not isinstance(jobs, list):
        raise InvalidOptions(f"'{path}': defaults is a table, jobs are tables", "Write [defaults] and [[jobs]].")
    found: list[tuple[str, Any]] = []
    for number, entry in enumerate(jobs, start=1):
        found += _spread(f"job {number}", {**defaults, **entry} if isinstance(entry, dict) else entry, combine)
    said = combine or document.get("combine")
    varied = _combined(document["vary"], said, f"'{path}'") if document.get("vary") else []
    found += [(f"job {len(jobs) + number}", {**defaults, **entry}) for number, entry in enumerate(varied, start=1)]
    yield from found


def _spread(place: str, document: Any, combine: Combine | None) -> list[tuple[str, Any]]:
    """An entry; or, when it says what varies, one for each combination."""
    if not isinstance(document, dict) or "vary" not in document:
        return [(place, document)]
    settings = {name: value for name, value in document.items() if name not in ("vary", "combine")}
    try:
        varied = _combined(document["vary"], combine or document.get("combine"), "the entry")
    except InvalidOptions as error:
        return [(place, error)]
    return [(f"{place}, job {number}", {**settings, **entry}) for number, entry in enumerate(varied, start=1)]


def _combined(vary: Any, combine: Any, where: str) -> list[dict[str, Any]]:
    """The entries that lists of values make.

    Raises:
        InvalidOptions: they are no lists, it is not said how they combine, or they cannot be paired.
    """
    lists = vary.values() if isinstance(vary, Mapping) else ()
    if not lists or not all(isinstance(values, list) and values for values in lists):
        raise InvalidOptions(f"{where}: what varies is a list of values each", 'Write vary as prompt = ["…", "…"].')
    lengths = {name: len(values) for name, values in vary.items()}
    if combine not in ("zip", "product") and not (combine is None and len(vary) == 1):
        raise InvalidOptions(
            f"{where} does not say how {', '.join(vary)} combine",
            "Say combine = zip (first with first) or combine = product (each with each), or use --combine.",
        )
    if combine == "zip" and len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise InvalidOptions(f"{where} pairs lists of different lengths: {said}", "Or combine = product.")
    rows = itertools.product(*vary.values()) if combine == "product" else zip(*vary.values(), strict=True)
    return [dict(zip(vary, row, strict=True)) for row in rows]
