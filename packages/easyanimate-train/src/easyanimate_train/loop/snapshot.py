"""The state of a run on disk. A checkpoint folder is whole or does not exist."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from easyanimate_core.checkpoints.save import write_json, write_tensors
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Snapshot", "latest_snapshot", "prune"]

_PREFIX = "checkpoint-"


class Snapshot:
    """One checkpoint folder: `weights`, `optimizer`, `ema`, `state`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return int(self.folder.name.removeprefix(_PREFIX))

    def write(
        self,
        weights: Mapping[str, torch.Tensor],
        optimizer: Mapping[str, Any],
        ema: Mapping[str, Any] | None,
        state: Mapping[str, Any],
    ) -> None:
        """Write everything into a hidden folder beside, then rename it."""
        beside = self.folder.with_name(f".{self.folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write_tensors(beside / "weights.safetensors", weights)
        torch.save(dict(optimizer), beside / "optimizer.pt")
        if ema is not None:
            torch.save(dict(ema), beside / "ema.pt")
        write_json(beside / "state.json", state)
        shutil.rmtree(self.folder, ignore_errors=True)
        beside.rename(self.folder)

    def weights(self) -> dict[str, torch.Tensor]:
        """Trained parameters by `role.name`."""
        return load_file(self.folder / "weights.safetensors")

    def optimizer(self) -> dict[str, Any]:
        """State of the optimiser."""
        return dict(torch.load(self.folder / "optimizer.pt", weights_only=True))

    def ema(self) -> dict[str, Any] | None:
        """State of the average, if the run has one."""
        path = self.folder / "ema.pt"
        return dict(torch.load(path, weights_only=True)) if path.is_file() else None

    def state(self) -> dict[str, Any]:
        """What else the run needs; see `Trainer`."""
        loaded = json.loads((self.folder / "state.json").read_text("utf-8"))
        if not isinstance(loaded, dict):
            raise CheckpointMismatch(f"'{self.folder}/state.json' is not an object", "Resume from an older checkpoint.")
        return loaded


def _snapshots(output: Path) -> list[Snapshot]:
    found = [Snapshot(p) for p in output.glob(f"{_PREFIX}*") if p.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda snapshot: snapshot.step)


def latest_snapshot(output: Path) -> Snapshot:
    """The newest checkpoint of a run.

    Raises:
        CheckpointNotFound: there is none.
    """
    found = _snapshots(output)
    if not found:
        raise CheckpointNotFound(f"'{output}' holds no checkpoint to resume from", "Start the run without --resume.")
    return found[-1]


def prune(output: Path, keep: int) -> None:
    """Remove all but the newest checkpoints."""
    for old in _snapshots(output)[:-keep]:
        shutil.rmtree(old.folder)
