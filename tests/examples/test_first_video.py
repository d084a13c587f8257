"""The tutorial's first page works as it stands, in an environment with nothing but the core package."""

from __future__ import annotations

from pathlib import Path

import pytest

from environments import make_environment, run
from tutorials import Page

pytestmark = pytest.mark.slow


def test_the_page_works(wheels: dict[str, Path], libraries: Path, tmp_path: Path):
    page = Page("first-video")
    assert page.commands[0] == "pip install packages/easyanimate-core"
    python = make_environment(tmp_path / "env", libraries, wheels["easyanimate-core"])
    folder = tmp_path / "videos"
    folder.mkdir()
    page.run(python, folder)
    (block,) = page.blocks("python")
    told = run(python, "-c", f"{block}\nprint(tuple(video.frames.shape))", cwd=folder)
    assert "(1, 3, 17, 64, 64)" in told
    assert {path.name for path in folder.glob("*.mp4")} >= {"circle.mp4", "star.mp4", "on.mp4", "square.mp4"}
