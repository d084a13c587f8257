"""The examples run as they stand, each in a folder of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import av
import pytest

from easyanimate_core.cli.main import run as easyanimate
from workspace import ROOT

EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")

needs_nano = pytest.mark.skipif(
    not any(item.is_dir() for item in files("easyanimate_core.presets").iterdir() if item.name == "nano"),
    reason="the weights of the embedded model are not in this checkout",
)


def run(example: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / example, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_has_its_test():
    """`third_party_plugin` has a file of its own, `cameras` are read in `tests/control/test_camera.py`."""
    assert {path.name for path in EXAMPLES.iterdir()} == {"cameras", "generate.py", "third_party_plugin"}


@needs_nano
@pytest.mark.slow
@pytest.mark.feature("C063")
def test_generate_writes_a_video_that_plays(tmp_path: Path):
    told = run("generate.py", "a green star growing on a white background", "star.mp4", folder=tmp_path)
    assert told.strip().endswith("star.mp4")
    with av.open(tmp_path / "star.mp4") as container:
        frames = list(container.decode(video=0))
    assert len(frames) > 1


@needs_nano
@pytest.mark.feature("C061", "C062")
def test_the_demo_of_the_readme_verifies_and_is_made_again_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The line of the README, which is also that of `make demo`."""
    (line,) = re.findall(r"^\$ .*easyanimate (generate .*demo\.mp4.*)$", README, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYANIMATE_HOME", str(tmp_path / "home"))
    for words in (shlex.split(line), ["verify", "demo.mp4"], ["replay", "demo.mp4"]):
        assert easyanimate(words) == 0, capsys.readouterr().err
    assert "identical: every frame of 'demo.mp4' came out the same" in capsys.readouterr().out
