"""The tutorial about steering: its commands run as they stand, and nano does what was asked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from easyanimate_core.media.read import read_video
from tutorials import Page

pytestmark = pytest.mark.slow


@pytest.mark.feature("K001", "K009")
def test_the_page_works(tmp_path: Path) -> None:
    evaluator = pytest.importorskip("easyanimate_train.shapes")
    pytest.importorskip("cv2")
    Page("steer").run(Path(sys.executable), tmp_path)

    def seen(name: str) -> torch.Tensor:
        frames, _ = read_video(tmp_path / name)
        return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float() / 255

    first, follows = (evaluator.read(seen(name)).scene for name in ("star.mp4", "follows.mp4"))
    assert (first.shape, first.motion) == (follows.shape, follows.motion) == ("star", "down")
    assert (follows.colour, follows.background) == ("yellow", "green")
