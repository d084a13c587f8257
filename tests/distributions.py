"""Real little distributions for tests: packages with metadata and entry points in a folder on `sys.path`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent


@dataclass(frozen=True)
class Site:
    """A folder that Python imports from, as `site-packages` is."""

    folder: Path
    modules: set[str] = field(default_factory=set)

    def module(self, name: str, source: str) -> str:
        """Write a module (dotted names make packages); returns its name."""
        path = self.folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source), encoding="utf-8")
        self.modules.add(name.partition(".")[0])
        importlib.invalidate_caches()
        return name

    def install(self, distribution: str, files: Mapping[str, str], *, version: str = "1.0", **entry_points: str) -> str:
        """Install a distribution: its modules by dotted name, its entry points of the group `easyanimate`."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = "".join(f"{name} = {target}\n" for name, target in entry_points.items())
        (info / "entry_points.txt").write_text(f"[easyanimate]\n{lines}")
        for name, source in files.items():
            self.module(name, source)
        return distribution


@contextmanager
def temporary_site(folder: Path) -> Iterator[Site]:
    """A site that is importable inside the block, and forgotten after it."""
    site = Site(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield site
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] in site.modules]:
            del sys.modules[name]
        importlib.invalidate_caches()
