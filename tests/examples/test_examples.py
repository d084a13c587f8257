"""The examples run as they stand, each in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import av
import pytest

from workspace import ROOT

EXAMPLES = ROOT / "examples"

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


@needs_nano
@pytest.mark.slow
@pytest.mark.feature("C063")
def test_generate_writes_a_video_that_plays(tmp_path: Path):
    told = run("generate.py", "a green star growing on a white background", "star.mp4", folder=tmp_path)
    assert told.strip().endswith("star.mp4")
    with av.open(tmp_path / "star.mp4") as container:
        frames = list(container.decode(video=0))
    assert len(frames) > 1
