"""`kill -9` at random moments: nothing is lost, nothing is left behind, and the video is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from easyanimate_core.testing import write_checkpoint
from workspace import ROOT

KILLS = 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_job_killed_again_and_again_makes_the_same_video(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "weights", max_length=48)
    line = [sys.executable, ROOT / "tests" / "killed_runs.py", weights, tmp_path, str(KILLS)]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)

    assert len(told["states"]) == KILLS
    # A kill may also fall between the last word about a job and the end of its process.
    assert set(told["states"]) <= {"interrupted", "done"}
    assert told["states"].count("interrupted") >= KILLS // 2
    assert max(told["first_steps"]) > 0, "some runs went on in the middle"
    reference = told["reference"]
    for made, files in zip(told["made"], told["files"], strict=True):
        assert made["digests"] == reference["digests"], "pixels before encoding, and the encoded packets"
        assert made["video"] == reference["video"]
        assert files == ["clip.mp4", "clip.mp4.json"], "one file, and nothing unfinished"
