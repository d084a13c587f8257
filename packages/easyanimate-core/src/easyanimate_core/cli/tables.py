"""Plain tables and JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

__all__ = ["print_json", "print_table"]


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns under a header; the last column is as long as it likes. Nothing is cut, so `grep` works."""
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for index, row in enumerate(table):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, bold=True) if index == 0 else line)


def print_json(document: Any) -> None:
    """Print JSON for people and programs: indented, in UTF-8, not escaped."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))
