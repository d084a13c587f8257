"""From nothing to the released nano: blueprint, recipes in order, export."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from safetensors.torch import load_file

from easyanimate_core.checkpoints.save import write_tensors
from easyanimate_core.errors import CheckpointNotFound
from easyanimate_train.nano.blueprint import write_blueprint

__all__ = ["LIMIT", "RECIPES", "export", "prepare"]

RECIPES: Final = MappingProxyType(
    {
        "nano-vae-images": "vae-images",
        "nano-vae-video": "vae-video",
        "nano-images": "images",
        "nano-clips": "clips",
        "nano-motion": "motion",
    }
)
"""The runs that make nano, in order, and the folder of each under `runs/nano`."""

LIMIT = 12_000_000
"""Bytes that the released folder may have in all."""


def prepare(root: Path) -> Path:
    """Write the blueprint that the first recipe starts from, unless it is there.

    Args:
        root: folder that recipes name as `runs/nano`.
    """
    blueprint = root / "blueprint"
    return blueprint if blueprint.is_dir() else write_blueprint(blueprint)


def export(root: Path, target: Path, *, say: Callable[[str], None] = lambda text: None) -> int:
    """Put the trained parts together, with weights as float16.

    Args:
        root: folder that recipes name as `runs/nano`. Text encoder and denoiser come from its `motion/`, the VAE from
            its `vae-video/`.
        target: folder to replace, in the released layout.
        say: hears one line per file.

    Returns:
        Bytes of all files.

    Raises:
        CheckpointNotFound: training has not finished.
        ValueError: the folder would be larger than `LIMIT`; nothing has been replaced.
    """
    trained, vae = root / "motion" / "final", root / "vae-video" / "final" / "vae"
    for part in (trained, vae):
        if not part.is_dir():
            raise CheckpointNotFound(f"there is no '{part}'", "Run `easyanimate nano make` first.")
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(trained, beside, ignore=shutil.ignore_patterns("vae"))
    shutil.copytree(vae, beside / "vae")
    for path in sorted(beside.rglob("*.safetensors")):
        write_tensors(path, {k: v.to(torch.float16) for k, v in load_file(path).items()})
    sizes = {path.relative_to(beside): path.stat().st_size for path in sorted(beside.rglob("*")) if path.is_file()}
    for name, size in sizes.items():
        say(f"{size:>10,} {name}")
    total = sum(sizes.values())
    if total > LIMIT:
        raise ValueError(f"the released folder would have {total:,} bytes, more than {LIMIT:,}")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(beside, target)
    return total
