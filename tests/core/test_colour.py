"""Colour transfer between frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from easyanimate_core.media.colour import from_lab, match_first_frame, to_lab
from easyanimate_core.pipeline import load
from easyanimate_core.testing import write_checkpoint
from recorder import SMALL


def test_known_colours() -> None:
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]]).T[None, :, None]
    lab = to_lab(rgb)[0, :, 0].T
    expected = torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]])
    torch.testing.assert_close(lab, expected, atol=0.05, rtol=0)


def test_there_and_back() -> None:
    rgb = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(from_lab(to_lab(rgb)), rgb, atol=1e-4, rtol=0)


@pytest.mark.feature("C046")
def test_the_first_frame_stays_and_the_others_follow_it() -> None:
    first = torch.rand(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    frames = torch.cat([first, (first * 0.6 + 0.1).clamp(0, 1)], dim=2)
    matched = match_first_frame(frames)
    assert torch.equal(matched[:, :, 0], frames[:, :, 0])
    want, got = to_lab(matched[:, :, 0]), to_lab(matched[:, :, 1])
    torch.testing.assert_close(got.mean((-2, -1)), want.mean((-2, -1)), atol=0.5, rtol=0)
    torch.testing.assert_close(got.std((-2, -1)), want.std((-2, -1)), atol=0.5, rtol=0)


@pytest.mark.feature("C046")
def test_a_request_can_ask_for_it(tmp_path: Path) -> None:
    pipe = load("nano", weights=write_checkpoint(tmp_path))
    plain = pipe(**SMALL)
    matched = pipe(match_colours=True, **SMALL)
    torch.testing.assert_close(matched.frames, match_first_frame(plain.frames))
