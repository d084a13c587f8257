"""Folders of every generation: what `inspect` calls their layouts, and which can be written in another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from easyanimate_core.checkpoints.convert import convert_checkpoint, convert_file
from easyanimate_core.checkpoints.inspection import inspect
from easyanimate_core.errors import ConfigError
from easyanimate_core.testing.tiny import (
    write_v1_checkpoint,
    write_v2_checkpoint,
    write_v3_checkpoint,
    write_v4_checkpoint,
    write_v5_checkpoint,
)

WRITERS: dict[str, Callable[[Path], Path]] = {
    "v1": write_v1_checkpoint,
    "v2": write_v2_checkpoint,
    "v3": write_v3_checkpoint,
    "v4": write_v4_checkpoint,
    "v5": write_v5_checkpoint,
}
REFUSED = {
    "v1": r"is an image model \(PixArt\) and has diffusers' names already",
    "v2": "is a denoiser of V1 to V4, which diffusers has no class for",
    "v3": "is a denoiser of V1 to V4, which diffusers has no class for",
    "v4": "is a denoiser of V1 to V4, which diffusers has no class for",
    "v5": "has two text encoders, and diffusers' pipelines take one",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("released")
    for name, write in WRITERS.items():
        write(home / name)
    return home


@pytest.mark.feature("C058")
@pytest.mark.parametrize("name", WRITERS)
def test_denoiser_and_vae_of_a_release_have_its_layout(name: str, home: Path) -> None:
    layouts = {part.name: part.layout for part in inspect(home / name)}
    assert (layouts["transformer"], layouts["vae"]) == ("easyanimate", "easyanimate")


@pytest.mark.feature("C067")
@pytest.mark.parametrize("name", WRITERS)
def test_the_released_layout_is_a_copy_bit_by_bit(name: str, home: Path, tmp_path: Path) -> None:
    made = convert_checkpoint(home / name, tmp_path / "made", "easyanimate", shard_bytes=2**30)
    assert made.renamed == 0
    files = sorted(path.relative_to(home / name) for path in (home / name).rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(made.path) for path in made.path.rglob("*") if path.is_file())
    for file in files:
        old, new = home / name / file, made.path / file
        if file.suffix == ".safetensors":
            stored, written = load_file(old), load_file(new)
            assert stored.keys() == written.keys()
            assert all(torch.equal(stored[key], written[key]) for key in stored)
        elif file.suffix == ".json":
            said = json.loads(old.read_text())
            assert said.items() <= json.loads(new.read_text()).items() if isinstance(said, dict) else True
        else:
            assert old.read_bytes() == new.read_bytes()


@pytest.mark.feature("C067")
@pytest.mark.parametrize("name", WRITERS)
def test_the_ports_layout_is_for_v5_1_alone(name: str, home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]):
        convert_checkpoint(home / name, tmp_path / "ported", "diffusers")
    assert not list(tmp_path.iterdir()), "refused before anything is written"


@pytest.mark.feature("C067")
def test_v5s_denoiser_by_itself_goes_there_and_back(home: Path, tmp_path: Path) -> None:
    source = home / "v5" / "transformer" / "diffusion_pytorch_model.safetensors"
    convert_file(source, tmp_path / "there.safetensors", "diffusers")
    convert_file(tmp_path / "there.safetensors", tmp_path / "back.safetensors", "easyanimate")
    stored, there, back = (
        load_file(p) for p in (source, tmp_path / "there.safetensors", tmp_path / "back.safetensors")
    )
    assert "transformer_blocks.0.attn1.add_q_proj.weight" in there
    assert stored.keys() == back.keys()
    assert all(torch.equal(stored[key], back[key]) for key in stored)
