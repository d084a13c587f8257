"""Writes LoRA files in any of the three layouts, with the hashes that web UIs look for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import safetensors.torch
import torch

from easyanimate_core.checkpoints.diffusers import from_diffusers_name, to_diffusers_name
from easyanimate_core.checkpoints.lora.names import LAYOUTS, dotted
from easyanimate_core.checkpoints.save import write_json, write_tensors
from easyanimate_core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.checkpoints.lora.file import LoraFile, LowRank

__all__ = ["sshs_hashes", "write_lora"]

_LEGACY_START = 0x100000
_LEGACY_LENGTH = 0x10000
# Layers of V1 to V3 alone, which attend to the text as diffusers' image models do, under the same names.
_EARLIER: Final = frozenset({"attn_temporal", "long_connect_fc", "adaln_single", "caption_projection"})


def sshs_hashes(data: bytes) -> dict[str, str]:
    """`sshs_model_hash` and `sshs_legacy_hash` of a safetensors file, as sd-webui's extensions compute them.

    Args:
        data: the file's bytes, as it is without these two.

    Returns:
        SHA-256 of what follows the header, and the first 8 digits of that of 64 KiB at offset 1 MiB.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    legacy = hashlib.sha256(data[_LEGACY_START : _LEGACY_START + _LEGACY_LENGTH]).hexdigest()[:8]
    return {"sshs_model_hash": hashlib.sha256(data[start:]).hexdigest(), "sshs_legacy_hash": legacy}


def write_lora(file: LoraFile, path: str | Path, layout: str, *, dtype: torch.dtype | None = None) -> Path:
    """Write a LoRA in a layout; matrices stay bit for bit as they are unless `dtype` says otherwise.

    Args:
        file: as read.
        path: `.safetensors` file to write; in the layout `peft` a folder with `adapter_model.safetensors` and
            `adapter_config.json`.
        layout: `"kohya"`, `"peft"` or `"diffusers"`.
        dtype: of the written tensors; as they are by default.

    Returns:
        The path.

    Raises:
        ConfigError: there is no such layout, or it cannot hold text-encoder layers.
        CheckpointMismatch: a kohya name is not one of a released model.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no LoRA layout is called '{layout}'", f"Choose one of: {', '.join(LAYOUTS)}.")
    if layout == "peft" and any(role != "denoiser" for role, _ in file.layers):
        raise ConfigError("the layout 'peft' holds one model's layers, and this LoRA also has a text encoder's")
    path = Path(path)
    layers = {(role, _path(file, name)): part for (role, name), part in file.layers.items()}
    if layout == "diffusers" and not any(set(name.split(".")) & _EARLIER for _, name in layers):
        # Diffusers has its own names for the text branch.
        layers = {(role, to_diffusers_name(name)): part for (role, name), part in layers.items()}
    target = path / "adapter_model.safetensors" if layout == "peft" else path
    target.parent.mkdir(parents=True, exist_ok=True)
    if layout == "kohya":
        tensors = _cast(_kohya(layers), dtype)
        write_tensors(target, tensors, sshs_hashes(safetensors.torch.save(tensors, {})))
        return path
    config = _peft_config({name: part for (_, name), part in layers.items()})
    tensors = _cast(_dotted(layers, layout), dtype)
    if layout == "peft":
        write_tensors(target, tensors)
        write_json(path / "adapter_config.json", config)
    else:
        held = {f"transformer.{key}": value for key, value in config.items()}
        write_tensors(target, tensors, {"lora_adapter_metadata": json.dumps(held, sort_keys=True)})
    return path


def _path(file: LoraFile, name: str) -> str:
    """The released path of a layer."""
    return from_diffusers_name(dotted(name) if file.layout == "kohya" else name)


def _kohya(layers: Mapping[tuple[str, str], LowRank]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for (role, name), part in layers.items():
        prefix = "lora_unet__" if role == "denoiser" else f"lora_te{role.removeprefix('text').lstrip('_')}_"
        stem = prefix + name.replace(".", "_")
        alpha = part.rank if part.alpha is None else part.alpha
        tensors |= {f"{stem}.alpha": torch.tensor(float(alpha)), f"{stem}.lora_down.weight": part.down}
        tensors[f"{stem}.lora_up.weight"] = part.up
    return tensors


def _dotted(layers: Mapping[tuple[str, str], LowRank], layout: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for (role, name), part in layers.items():
        own = "base_model.model." if layout == "peft" else "transformer."
        prefix = own if role == "denoiser" else f"text_encoder{role.removeprefix('text')}."
        stem = prefix + name
        tensors |= {f"{stem}.lora_A.weight": part.down, f"{stem}.lora_B.weight": part.up}
    return tensors


def _peft_config(layers: Mapping[str, LowRank]) -> dict[str, Any]:
    """What PEFT needs to build the same adapter: its rank and alpha, and where layers differ."""
    ranks = {name: part.rank for name, part in layers.items()}
    alphas = {name: float(part.rank if part.alpha is None else part.alpha) for name, part in layers.items()}
    rank, alpha = max(ranks.values(), default=1), max(alphas.values(), default=1.0)
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if math.isclose(alpha, int(alpha)) else alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(layers),
        "bias": "none",
    }


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {name: tensor.to(dtype).contiguous() if dtype else tensor.contiguous() for name, tensor in tensors.items()}
