"""Where the repository's files are, and what its modules define: for the tests of the house rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "SIBLINGS", "Module", "modules", "project_files", "python_files"]

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""

PACKAGES = {folder.name: folder for folder in sorted((ROOT / "packages").iterdir()) if folder.is_dir()}
"""Folder of each distribution by its name."""

SIBLINGS = tuple(name for name in PACKAGES if name != "easyanimate-core")
"""The distributions that are plugins of core."""

_FOLDERS = ("packages", "tests", "benchmarks", "examples", "tools", "docs", ".ci")
_MADE_BY_TOOLS = {"__pycache__", "build", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a package, parsed."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def is_public(self) -> bool:
        return not any(part.startswith("_") for part in self.name.split("."))

    def __str__(self) -> str:
        return self.name


def project_files(*suffixes: str) -> Iterator[Path]:
    """Files that belong to the project: those at the top, and those in its folders."""
    top = (path for path in ROOT.iterdir() if path.is_file())
    inside = (path for folder in _FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
    for path in sorted([*top, *inside]):
        if path.suffix in suffixes and not _MADE_BY_TOOLS & set(path.relative_to(ROOT).parts):
            yield path


def python_files() -> list[Path]:
    """All Python of the project."""
    return list(project_files(".py"))


def modules() -> list[Module]:
    """Every module of the four packages."""
    found = []
    for folder in PACKAGES.values():
        source = folder / "src"
        for path in sorted(source.rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path))))
    return found
