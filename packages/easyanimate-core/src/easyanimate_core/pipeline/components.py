"""Components from a checkpoint: by registered name, built on the meta device, filled strictly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import torch
from torch import nn

from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.source import read_json, weight_files
from easyanimate_core.errors import CheckpointMismatch, EasyAnimateError
from easyanimate_core.interfaces import Denoiser, Sampler, TextEncoder, VideoVAE
from easyanimate_core.plugins import active
from easyanimate_core.registry import Slot
from easyanimate_core.schema import Choice
from easyanimate_core.slots import DENOISERS, SAMPLERS, TEXT_ENCODERS, VAES
from easyanimate_core.validation import did_you_mean

__all__ = ["build_denoiser", "build_sampler", "build_text_encoder", "build_vae"]

T = TypeVar("T")

# Keys that released configs carry and that no released code ever read.
_IDLE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {"vaes": frozenset({"sample_size", "norm_type", "force_upcast"})}
)


def build_text_encoder(
    name: str, weights: Path, tokenizer: Path, *, max_length: int | None, dtype: torch.dtype
) -> TextEncoder:
    """A text encoder of the slot `text_encoders`.

    Its factory is called with the content of `config.json`, the tokenizer's folder and `max_length`. A method
    `keymap(name)`, if it has one, says under which name a stored tensor belongs into the module, or `None` for what
    is not to be read.

    Args:
        name: registered name.
        weights: the checkpoint's `text_encoder/` folder.
        tokenizer: the checkpoint's `tokenizer/` folder.
        max_length: tokens that prompts are padded to.
        dtype: of the weights in memory.

    Raises:
        CheckpointError: config, tokenizer or weights do not fit.
    """
    config = read_json(weights / "config.json")
    return _filled(TEXT_ENCODERS, name, weights, dtype, lambda make: make(config, tokenizer, max_length=max_length))


def build_denoiser(name: str, folder: Path, *, dtype: torch.dtype) -> Denoiser:
    """A denoiser of the slot `denoisers`, from the checkpoint's `transformer/` folder.

    Its factory is called with the entries of `config.json` as keywords.

    Raises:
        CheckpointError: config or weights do not fit.
    """
    return _from_config(DENOISERS, name, folder, dtype)


def build_vae(name: str, folder: Path, *, dtype: torch.dtype) -> VideoVAE:
    """A VAE of the slot `vaes`, from the checkpoint's `vae/` folder; its factory is called as a denoiser's.

    Raises:
        CheckpointError: config or weights do not fit.
    """
    return _from_config(VAES, name, folder, dtype)


def build_sampler(choice: Choice[Sampler], folder: Path | None) -> Sampler:
    """A sampler with the options of the checkpoint's `scheduler/` folder, then those that the request gives.

    Raises:
        CheckpointError: `scheduler_config.json` does not fit.
        InvalidOptions: the request's options do not fit.
    """
    registry = active().registries[SAMPLERS]
    stored: dict[str, Any] = {}
    if folder is not None:
        path = folder / "scheduler_config.json"
        config = read_json(path)
        stored = _public(config)
        written_for = str(config.get("_class_name", ""))
        if written_for in registry and registry.get(written_for).qualified != choice.qualified:
            # Written for another sampler: what both know is meant for both.
            model = registry.options_model(choice.qualified)
            stored = {key: value for key, value in stored.items() if model is not None and key in model.model_fields}
        try:
            registry.validate(choice.qualified, stored)
        except EasyAnimateError as error:
            raise CheckpointMismatch(f"'{path}': {error.message}", error.hint) from error
    return registry.create(choice.qualified, {**stored, **choice.given})


def _from_config(slot: Slot[T], name: str, folder: Path, dtype: torch.dtype) -> T:
    path = folder / "config.json"
    idle = _IDLE.get(slot.name, frozenset())
    config = {key: value for key, value in _public(read_json(path)).items() if key not in idle}

    def build(make: Callable[..., T]) -> T:
        _check_keys(make, config, path)
        try:
            return make(**config)
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise CheckpointMismatch(f"'{path}' does not describe a '{name}': {error}", "Fetch it again.") from error

    return _filled(slot, name, folder, dtype, build)


def _filled(slot: Slot[T], name: str, folder: Path, dtype: torch.dtype, build: Callable[[Callable[..., T]], T]) -> T:
    """Build without memory, then read weights straight into place."""
    factory = active().registries[slot].load(name)
    with torch.device("meta"):
        component = build(factory)
    module = cast("nn.Module", component)
    load_into(module, weight_files(folder), keymap=getattr(component, "keymap", None), dtype=dtype)
    module.eval()
    return component


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the notes of the library that wrote it (`_class_name`, `_diffusers_version`)."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _check_keys(factory: Callable[..., Any], config: Mapping[str, Any], path: Path) -> None:
    """Refuse what the factory would not understand: a setting that is dropped silently changes pictures silently."""
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    if unknown := sorted(config.keys() - parameters.keys()):
        raise CheckpointMismatch(
            f"'{path}' sets '{unknown[0]}' to '{config[unknown[0]]}', which this model does not have",
            did_you_mean(unknown[0], list(parameters)) or "Choose the preset that belongs to this checkpoint.",
        )
