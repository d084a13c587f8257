"""Checkpoints of a family: what one folder lacks, the folder beside it has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import easyanimate_core as ea
from easyanimate_core.checkpoints.convert import convert_checkpoint
from easyanimate_core.checkpoints.save import write_json
from easyanimate_core.checkpoints.source import SHARED, parts
from easyanimate_core.engine.sources import weight_files
from easyanimate_core.errors import CheckpointNotFound, UnsafeCheckpoint
from easyanimate_core.pipeline.verify import verify
from easyanimate_core.testing import write_checkpoint
from recorder import SMALL


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole/`, and `other/` with a denoiser of its own and nothing else."""
    root = tmp_path_factory.mktemp("family")
    write_checkpoint(root / "whole")
    write_checkpoint(root / "full", seed=1)
    shutil.copytree(root / "full" / "transformer", root / "other" / "transformer")
    write_json(root / "other" / SHARED, {"folder": "whole"})
    return root


def test_own_parts_come_before_shared_ones(family: Path) -> None:
    found = parts(family / "other")
    assert found["transformer"] == family / "other" / "transformer"
    assert {name: place.parent.name for name, place in found.items() if name != "transformer"} == dict.fromkeys(
        set(parts(family / "whole")) - {"transformer"}, "whole"
    )


def test_a_shared_folder_generates_verifies_and_is_identified_as_a_whole_one(family: Path) -> None:
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.rmtree(family / "full" / part)
        shutil.copytree(family / "whole" / part, family / "full" / part)
    shared, whole = (ea.load("nano", weights=family / name, device="cpu")(**SMALL) for name in ("other", "full"))
    assert torch.equal(shared.frames, whole.frames)
    assert weight_files(family / "other").keys() == weight_files(family / "full").keys()
    verdicts = list(verify(family / "other"))
    assert {verdict.name for verdict in verdicts} == {"transformer", "vae", "text_encoder"}
    assert all(verdict.good for verdict in verdicts)


def test_converting_writes_a_whole_folder(family: Path, tmp_path: Path) -> None:
    convert_checkpoint(family / "other", tmp_path / "made", "diffusers")
    assert parts(tmp_path / "made").keys() == parts(family / "whole").keys()
    assert not (tmp_path / "made" / SHARED).exists()


@pytest.mark.parametrize("name", ["../whole", "/etc", "..", "", "a/b", "a\\b"])
def test_only_a_neighbour_can_be_named(family: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "model" / "transformer").mkdir(parents=True)
    write_json(tmp_path / "model" / SHARED, {"folder": name})
    with pytest.raises(UnsafeCheckpoint, match="names the folder"):
        parts(tmp_path / "model")


def test_a_missing_neighbour_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / SHARED, {"folder": "nano"})
    with pytest.raises(CheckpointNotFound, match="shares components with"):
        parts(tmp_path / "model")
