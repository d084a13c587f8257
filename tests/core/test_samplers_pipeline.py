"""Samplers in the diffusion loop: noise of one's own for every sample, and runs that go on after an interruption."""

from __future__ import annotations

import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from easyanimate_core.data import State
from easyanimate_core.engine.snapshots import FolderSnapshots
from easyanimate_core.errors import Cancelled
from easyanimate_core.interfaces import Toolbox
from easyanimate_core.pipeline.denoise import Denoise
from easyanimate_core.plugins import active
from easyanimate_core.slots import SAMPLERS
from easyanimate_core.testing.toolbox import tiny_request, tiny_toolbox, walked
from workspace import ROOT

CASES: dict[str, dict[str, Any]] = {
    "euler": {},
    "euler-a": {},
    "dpm++": {},
    "dpm++ drawing": {"algorithm_type": "sde-dpmsolver++"},
    "pndm": {},
    "pndm after Runge-Kutta": {"skip_prk_steps": False},
    "ddim": {"eta": 1.0, "clip_sample": False},
    "lcm": {},
    "flow": {"stochastic_sampling": True},
}


@pytest.fixture(scope="module")
def models() -> Toolbox:
    return tiny_toolbox()


def toolbox(models: Toolbox, case: str, **changes: Any) -> Toolbox:
    name, options = case.split()[0], CASES[case]
    if case == "pndm":
        options = {"skip_prk_steps": True}
    return replace(models, sampler=active().registries[SAMPLERS].create(name, options), **changes)


def begun(models: Toolbox, **settings: Any) -> State:
    return walked(tiny_request(steps=5, **settings), models, until="noise")


@torch.no_grad()
def latents(state: State, toolbox: Toolbox, **loop: Any) -> Tensor:
    found = Denoise(**loop)(state, toolbox).latents
    assert found is not None
    return found


@pytest.mark.feature("C029")
@pytest.mark.parametrize("case", CASES)
def test_a_video_of_a_batch_is_the_one_made_alone_with_its_seed(models: Toolbox, case: str) -> None:
    together = latents(begun(models, seed=7, videos_per_prompt=2), toolbox(models, case))
    for index, seed in enumerate((7, 8)):
        alone = latents(begun(models, seed=seed), toolbox(models, case))
        # Up to rounding: the network multiplies larger matrices for a batch.
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-4 * float(alone.abs().max()))
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("case", ["euler-a", "dpm++ drawing", "ddim", "lcm", "flow"])
def test_other_seeds_draw_other_noise_between_steps(models: Toolbox, case: str) -> None:
    """The same first noise, so only later draws can differ."""
    state = begun(models, seed=7)
    other = replace(state, request=state.request.model_copy(update={"seed": 8}))
    assert not torch.allclose(latents(state, toolbox(models, case)), latents(other, toolbox(models, case)))


@pytest.mark.feature("C029")
@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_goes_on_bit_by_bit(models: Toolbox, case: str, tmp_path: Path) -> None:
    state = begun(models, seed=7, videos_per_prompt=2)
    whole = latents(state, toolbox(models, case))
    taken = []

    def stop(index: int, _: Tensor) -> None:
        taken.append(index)
        if index == 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        latents(state, toolbox(models, case, snapshots=FolderSnapshots(tmp_path)), on_step=stop)
    resumed = toolbox(models, case, snapshots=FolderSnapshots(tmp_path))
    assert torch.equal(latents(state, resumed, on_step=lambda index, _: taken.append(index)), whole)
    assert taken[:6] == [0, 1, 2, 3, 3, 4], "the third step was kept, the fourth was not"


def test_the_page_on_samplers_is_true(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "samplers.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    (tmp_path / "block.py").write_text(block, "utf-8")
    assert len(runpy.run_path(str(tmp_path / "block.py"))["schedule"]) == 20
    rows = dict(re.findall(r"^\| `([^`]+)` \| .+? \| .+? \| (.+?) \|$", page, re.M))
    ours = [entry for entry in active().registries[SAMPLERS] if entry.owner == "easyanimate-core"]
    assert set(rows) == {entry.name for entry in ours}
    assert [name for name, draws in rows.items() if draws == "at every step"] == ["euler-a"]
