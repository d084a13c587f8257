"""The commands of the pages on memory and step caches, with a tiny model in the place of the default one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import easyanimate_core
from easyanimate_core.cli.main import run
from easyanimate_core.testing import write_checkpoint
from workspace import ROOT

PAGES = ("how-to/low-memory.md", "how-to/step-caches.md", "reference/plan.md")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.mark.feature("C064")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_page_work(
    page: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line.removeprefix("$ ") for block in blocks(page, "console") for line in block.splitlines()]
    assert lines
    for line in lines:
        program, command, *arguments = shlex.split(line)
        assert program == "easyanimate"
        if "v5.1-12b" in arguments:
            continue  # tests of the planner count the real sizes
        small = ["--weights", str(weights), "--size", "32x48", "--frames", "5", "--steps", "2"]
        status = run([command, *arguments, *small])
        assert status == 0, f"{line}\n{capsys.readouterr().err}"


def test_the_python_of_the_page_works() -> None:
    (code,) = blocks("how-to/low-memory.md", "python")
    names: dict[str, object] = {}
    exec(compile(code, "low-memory.md", "exec"), names)  # noqa: S102  (a page of ours)
    pipe = names["pipe"]
    assert isinstance(pipe, easyanimate_core.Pipeline)
    assert pipe.assembly.offload.given["budget"] == 2 << 20
