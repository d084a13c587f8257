"""The package and both components keep their contracts, and the bars are where they should be."""

from __future__ import annotations

import pytest
import torch
from easyanimate_cinema.letterbox import Letterbox
from easyanimate_cinema.options import LetterboxOptions, PowerOptions

from easyanimate_core.testing import (
    ConditionerContract,
    PluginContract,
    SamplerContract,
    tiny_request,
    tiny_state,
    tiny_toolbox,
)


class TestPlugin(PluginContract):
    distribution = "easyanimate-cinema"


class TestLetterbox(ConditionerContract):
    component = "easyanimate-cinema:letterbox"


class TestPower(SamplerContract):
    component = "easyanimate-cinema:power"
    options = PowerOptions(power=2.0)
    residual = 1e-5


@pytest.mark.parametrize(("bar", "rows"), [(0.01, 1), (0.25, 2), (0.45, 3)])
def test_bars_are_rounded_to_the_grid_and_leave_a_picture(bar: float, rows: int):
    state = tiny_state(tiny_request(size=(64, 32)))
    with torch.no_grad():
        origin = Letterbox(LetterboxOptions(bar=bar)).origin(state, tiny_toolbox())
    assert origin.redraw is not None
    kept = (origin.redraw == 0)[0, 0, 0, :, 0]
    assert kept.tolist() == [True] * rows + [False] * (8 - 2 * rows) + [True] * rows
