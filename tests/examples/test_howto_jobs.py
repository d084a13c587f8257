"""The commands of `docs/how-to/jobs.md`, in order, with a tiny model in the place of the default one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from easyanimate_core.cli.main import run
from easyanimate_core.testing import write_checkpoint
from workspace import ROOT

PAGE = (ROOT / "docs" / "how-to" / "jobs.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_commands_of_the_page_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYANIMATE_HOME", str(tmp_path / "home"))
    weights = write_checkpoint(tmp_path / "weights")
    small = {"weights": str(weights), "size": "32x48", "frames": 5, "steps": 1}
    (batch,) = blocks("toml")
    tiny = "\n".join(f"{name} = {value!r}" for name, value in small.items() if name != "steps")
    Path("videos.toml").write_text(batch.replace("steps = 20", f"steps = 1\n{tiny}"), encoding="utf-8")
    (lines_of_json,) = blocks("json")
    rows = [json.dumps({**json.loads(line), **small}) for line in lines_of_json.splitlines()]
    Path("pairs.jsonl").write_text("\n".join(rows).replace('"steps": [10, 20]', '"steps": [1, 1]'), encoding="utf-8")
    Path("each.csv").write_text(*blocks("csv"), encoding="utf-8")
    lines = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert len(lines) >= 8
    for line in lines:
        program, command, *arguments = shlex.split(line)
        assert program == "easyanimate"
        flags = [part for name, value in small.items() for part in (f"--{name}", str(value))]
        status = run([command, *arguments, *(flags if command == "generate" else [])])
        assert status == 0, f"{line}\n{capsys.readouterr().err}"
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"circle.mp4", "large.mp4"}
    assert len(list((tmp_path / "outputs").glob("*.mp4"))) == 4 + 2
