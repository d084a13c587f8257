"""From nothing to the released nano family: blueprint, recipes in order, export."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from safetensors.torch import load_file

from easyanimate_core.checkpoints.save import write_json, write_tensors
from easyanimate_core.checkpoints.source import SHARED
from easyanimate_core.errors import CheckpointNotFound
from easyanimate_train.nano.blueprint import write_blueprint

__all__ = ["FAMILY", "LIMIT", "RECIPES", "Member", "export", "prepare"]

RECIPES: Final = MappingProxyType(
    {
        "nano-vae-images": "vae-images",
        "nano-vae-video": "vae-video",
        "nano-images": "images",
        "nano-clips": "clips",
        "nano-motion": "motion",
        "nano-inp": "inp",
        "nano-inp-fine": "inp-fine",
        "nano-control": "control",
        "nano-camera": "camera",
    }
)
"""The runs that make the family, in order, and the folder of each under `runs/nano`."""

LIMIT = 40_000_000
"""Bytes that the released folders may have in all."""


@dataclass(frozen=True, slots=True)
class Member:
    """One model of the family.

    Attributes:
        run: folder of its last run.
        vae: folder of the run that its VAE comes from; `None` shares all but the denoiser with `nano`.
    """

    run: str
    vae: str | None = None


FAMILY: Final[Mapping[str, Member]] = MappingProxyType(
    {
        "nano": Member("motion", vae="vae-video"),
        "nano-inp": Member("inp-fine"),
        "nano-control": Member("control"),
        "nano-camera": Member("camera"),
    }
)
"""Released folders, the first one whole, the others beside it."""


def prepare(root: Path) -> Path:
    """Write the blueprint that the first recipe starts from, unless it is there.

    Args:
        root: folder that recipes name as `runs/nano`.
    """
    blueprint = root / "blueprint"
    return blueprint if blueprint.is_dir() else write_blueprint(blueprint)


def export(root: Path, target: Path, *, say: Callable[[str], None] = lambda text: None) -> int:
    """Put the trained parts together, with weights as float16.

    Models whose training has not finished are left out, all but the first.

    Args:
        root: folder that recipes name as `runs/nano`.
        target: gets one folder per model in the released layout; those of the same names are replaced.
        say: hears one line per file.

    Returns:
        Bytes of all files.

    Raises:
        CheckpointNotFound: training has not finished.
        ValueError: the folders would be larger than `LIMIT`; nothing has been replaced.
    """
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name, member in FAMILY.items():
            _gather(root, member, beside / name)
        for path in sorted(beside.rglob("*.safetensors")):
            write_tensors(path, {k: v.to(torch.float16) for k, v in load_file(path).items()})
        sizes = {path.relative_to(beside): path.stat().st_size for path in sorted(beside.rglob("*")) if path.is_file()}
        for path, size in sizes.items():
            say(f"{size:>10,} {path}")
        total = sum(sizes.values())
        if total > LIMIT:
            raise ValueError(f"the released folders would have {total:,} bytes, more than {LIMIT:,}")
        target.mkdir(parents=True, exist_ok=True)
        for made in sorted(beside.iterdir()):
            shutil.rmtree(target / made.name, ignore_errors=True)
            os.replace(made, target / made.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return total


def _gather(root: Path, member: Member, place: Path) -> None:
    """Copy a model's parts, or nothing when it shares parts and is not trained yet."""
    trained = root / member.run / "final"
    if member.vae is None:
        if trained.is_dir():
            shutil.copytree(trained / "transformer", place / "transformer")
            write_json(place / SHARED, {"folder": next(iter(FAMILY))})
        return
    vae = root / member.vae / "final" / "vae"
    for part in (trained, vae):
        if not part.is_dir():
            raise CheckpointNotFound(f"there is no '{part}'", "Run `easyanimate nano make` first.")
    shutil.copytree(trained, place, ignore=shutil.ignore_patterns("vae"))
    shutil.copytree(vae, place / "vae")
