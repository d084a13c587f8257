"""A checkpoint folder as trainable modules, and back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.save import save_component
from easyanimate_core.checkpoints.source import component_folder, parts, read_json, weight_files
from easyanimate_core.data import Inlet
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.text.qwen2_vl import Qwen2VLTextEncoder
from easyanimate_core.vae.magvit import Magvit
from easyanimate_train.interfaces import Models

__all__ = ["FOLDERS", "load_models", "save_models"]

FOLDERS: Final[Mapping[str, str]] = {"denoiser": "transformer", "vae": "vae", "text": "text_encoder"}
"""Folder of each role in a released checkpoint."""

_FILES: Final = {"text": "model.safetensors"}


def _build(role: str, folder: Path, config: dict[str, Any]) -> nn.Module:
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    if role == "text":
        return Qwen2VLTextEncoder(config, folder / "tokenizer")
    return cast("nn.Module", MMDiT(**settings) if role == "denoiser" else Magvit(**settings))


def _start(denoiser: Any) -> None:
    """Begin near the identity, but not at it: every block adds a third of its output, whatever the timestep.

    With gates at zero, as in DiT (Peebles and Xie, 2023), a small model spends its first thousands of clips opening
    them.
    """
    width = denoiser.proj.out_channels
    with torch.no_grad():
        for block in denoiser.transformer_blocks:
            for norm in (block.norm1, block.norm2):
                norm.linear.weight.zero_()
                norm.linear.bias.zero_()
                for gate in (2, 5):
                    norm.linear.bias[gate * width : (gate + 1) * width] = 0.3
        denoiser.norm_out.linear.weight.zero_()
        denoiser.norm_out.linear.bias.zero_()
        denoiser.proj_out.weight.zero_()
        denoiser.proj_out.bias.zero_()


def load_models(
    folder: Path,
    roles: Sequence[str],
    fresh: Sequence[str],
    seed: int,
    *,
    inlets: Sequence[Inlet] = (),
    denoiser: Mapping[str, Any] = MappingProxyType({}),
) -> Models:
    """Build and load the modules that an objective runs.

    Args:
        folder: in the released layout.
        roles: which modules.
        fresh: those that start from random weights, drawn from `seed`.
        seed: of fresh weights.
        inlets: of the denoiser; its input projection grows or shrinks to fit them.
        denoiser: settings that replace those of its `config.json`.

    Raises:
        CheckpointError: a folder is missing or does not fit.
    """
    modules = {}
    for role in roles:
        (place,) = component_folder(folder, FOLDERS[role])
        config = read_json(place / "config.json")
        if role == "denoiser":
            config = {**config, **denoiser}
            if inlets:
                config["in_channels"] = config["out_channels"] + sum(inlet.width for inlet in inlets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = _build(role, folder, config)
            if role in fresh and isinstance(module, MMDiT):
                _start(module)
        if role not in fresh:
            keymap, grow = getattr(module, "keymap", None), role == "denoiser" and bool(inlets)
            load_into(module, weight_files(place), keymap=keymap, dtype=torch.float32, grow_inlets=grow)
        if role == "denoiser" and inlets:
            cast("MMDiT", module).declare(inlets)
        modules[role] = module.train()
    return Models(folder, **modules)


def save_models(models: Models, folder: Path, replaced: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write a checkpoint in the released layout; components that were not loaded are copied.

    Args:
        models: what was trained.
        folder: target, made if needed.
        replaced: tensors by `role.name` to write instead of the modules' own, for example averages.
        dtype: of the written weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    modules: dict[str, Any] = dict(models.roles())
    for role, module in modules.items():
        state = module.released_state_dict() if hasattr(module, "released_state_dict") else module.state_dict()
        tensors = {
            name: replaced.get(f"{role}.{name}", tensor).to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }
        # The class that the checkpoint was released under, whatever ours is called.
        released = read_json(component_folder(models.folder, FOLDERS[role])[0] / "config.json").get("_class_name")
        config = {**dict(module.config), **({"_class_name": released} if released else {})}
        clean = {k: v for k, v in config.items() if k not in ("_use_default_values", "_name_or_path")}
        save_component(folder / FOLDERS[role], clean, tensors, **({"weights": _FILES[role]} if role in _FILES else {}))
    for name, part in sorted(parts(models.folder).items()):
        if not (folder / name).exists() and not name.startswith(("checkpoint", ".")):
            shutil.copytree(part, folder / name)
