"""Placements: the same output as resident, and modules given back as they were found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from easyanimate_core.interfaces import OffloadStrategy, Toolbox
from easyanimate_core.offload.resident import Resident
from easyanimate_core.pipeline import load
from easyanimate_core.testing import write_checkpoint


@pytest.fixture(scope="module")
def toolbox(tmp_path_factory: pytest.TempPathFactory) -> Toolbox:
    return load("nano", weights=write_checkpoint(tmp_path_factory.mktemp("tiny")), device="cpu").prepare()


def devices(toolbox: Toolbox) -> set[str]:
    return {tensor.device.type for module in toolbox.modules().values() for tensor in module.state_dict().values()}


@pytest.mark.feature("C047")
def test_resident_changes_nothing_where_everything_is_in_place(toolbox: Toolbox) -> None:
    strategy: OffloadStrategy = Resident()
    before = {role: module.state_dict() for role, module in toolbox.modules().items()}
    strategy.attach(toolbox, torch.device("cpu"))
    with strategy.using("text", "denoiser"):
        assert devices(toolbox) == {"cpu"}
    strategy.detach()
    for role, module in toolbox.modules().items():
        assert all(torch.equal(tensor, before[role][name]) for name, tensor in module.state_dict().items())


@pytest.mark.feature("C047")
def test_resident_leaves_components_alone_that_are_no_modules(toolbox: Toolbox) -> None:
    class Plain:
        def encode(self, prompts: object) -> None: ...

    strategy = Resident()
    strategy.attach(replace(toolbox, text_encoders=(Plain(),)), torch.device("cpu"))
    strategy.detach()


@pytest.mark.gpu
@pytest.mark.feature("C047")
def test_resident_moves_everything_and_gives_it_back(toolbox: Toolbox) -> None:
    strategy = Resident()
    strategy.attach(toolbox, torch.device("cuda"))
    assert devices(toolbox) == {"cuda"}
    strategy.detach()
    assert devices(toolbox) == {"cpu"}


def test_tiny_checkpoints_repeat(tmp_path: Path) -> None:
    def contents(name: str, seed: int) -> dict[str, bytes]:
        folder = write_checkpoint(tmp_path / name, seed=seed)
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    first = contents("a", 0)
    assert torch.equal(torch.rand(1), drawn), "the global generator is not disturbed"
    assert contents("b", 0) == first
    other = contents("c", 1)
    assert other.keys() == first.keys()
    assert {n for n in first if other[n] != first[n]} == {n for n in first if n.endswith(".safetensors")}
