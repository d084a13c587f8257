"""Writes components in the released layout. A file appears whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["save_component", "write_json", "write_tensors"]

_WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_component(
    folder: Path, config: Mapping[str, Any], state_dict: Mapping[str, Tensor], *, weights: str = _WEIGHTS
) -> Path:
    """Write `config.json` and one safetensors file into a component's folder, which is made if needed.

    Args:
        folder: for example `…/transformer`.
        config: JSON-able; what the component is built from.
        state_dict: tensors by released name, written in the dtype that they have.
        weights: name of the safetensors file.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / weights, state_dict)
    write_json(folder / "config.json", config)
    return folder


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file beside its final place, then move it there in one step."""
    beside = path.with_name(f".{path.name}.part")
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(copies, beside, metadata={"format": "pt", **(metadata or {})})
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object as UTF-8 with sorted keys, whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
