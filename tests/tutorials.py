"""What the tests of tutorials share: a page's blocks, and its commands run in the environment that it describes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from environments import run
from workspace import ROOT

__all__ = ["Page"]


class Page:
    """A page of `docs/tutorial`."""

    def __init__(self, name: str) -> None:
        self.text = (ROOT / "docs" / "tutorial" / f"{name}.md").read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[str]:
        """Fenced blocks of a language, in order."""
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, flags=re.DOTALL | re.MULTILINE)

    def files(self) -> dict[str, str]:
        """Blocks that are whole files: those with a line such as `src/plugin.py`: above them."""
        return dict(re.findall(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```", self.text, flags=re.DOTALL | re.MULTILINE))

    @property
    def commands(self) -> list[str]:
        """Lines of console blocks, without the prompt."""
        lines = [line for block in self.blocks("console") for line in block.splitlines()]
        assert all(line.startswith("$ ") for line in lines)
        return [line.removeprefix("$ ") for line in lines]

    def run(self, python: Path, folder: Path) -> dict[str, str]:
        """What each command prints, run in order in a folder; those of pip have been done by whoever made `python`."""
        told = {}
        for line in self.commands:
            program, *arguments = shlex.split(line)
            if program != "pip":
                told[line] = run(python.with_name(program), *arguments, cwd=folder)
        return told
