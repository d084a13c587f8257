"""Components from a checkpoint: by registered name, built on the meta device, filled strictly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import torch
from torch import nn

from easyanimate_core.checkpoints.archive import Archive
from easyanimate_core.checkpoints.detect import recognise
from easyanimate_core.checkpoints.keymap import KeyMap
from easyanimate_core.checkpoints.load import fill, load_into
from easyanimate_core.checkpoints.source import component_files, read_json, weight_files
from easyanimate_core.errors import CheckpointMismatch, EasyAnimateError
from easyanimate_core.events import SILENT, EventBus, Notice
from easyanimate_core.interfaces import Denoiser, Sampler, TextEncoder, VideoVAE
from easyanimate_core.plugins import active
from easyanimate_core.registry import Slot
from easyanimate_core.schema import Choice
from easyanimate_core.slots import DENOISERS, SAMPLERS, TEXT_ENCODERS, VAES
from easyanimate_core.validation import did_you_mean

__all__ = ["build_denoiser", "build_sampler", "build_text_encoder", "build_vae", "skeleton"]

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
    with torch.device("meta"):
        encoder = active().registries[TEXT_ENCODERS].load(name)(config, tokenizer, max_length=max_length)
    module = cast("nn.Module", encoder)
    load_into(module, weight_files(weights), keymap=getattr(encoder, "keymap", None), dtype=dtype)
    module.eval()
    return encoder


def build_denoiser(
    name: str, folder: Path, *, dtype: torch.dtype, path: Path | None = None, events: EventBus = SILENT
) -> Denoiser:
    """A denoiser of the slot `denoisers`, from the checkpoint's `transformer/` folder.

    Its factory is called with the entries of `config.json` as keywords. The format of the weights is found among the
    registered ones, unless the component has a method `keymap(name)` of its own.

    Args:
        name: registered name.
        folder: the checkpoint's `transformer/`.
        dtype: of the weights in memory.
        path: other weights than the folder's: a file, a component's folder, or another checkpoint's folder, whose
            `config.json` counts if it has one.
        events: hears, in a `Notice`, what other weights were read.

    Raises:
        CheckpointError: config or weights do not fit.
    """
    return _from_config(DENOISERS, name, _Source("denoiser", folder, path), dtype, events)


def build_vae(
    name: str, folder: Path, *, dtype: torch.dtype, path: Path | None = None, events: EventBus = SILENT
) -> VideoVAE:
    """A VAE of the slot `vaes`, from the checkpoint's `vae/` folder; all else as of a denoiser.

    Raises:
        CheckpointError: config or weights do not fit.
    """
    return _from_config(VAES, name, _Source("vae", folder, path), dtype, events)


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


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a component's weights are: in the checkpoint's folder, or in what the user gave instead."""

    role: str
    folder: Path
    path: Path | None = None

    def place(self) -> tuple[tuple[Path, ...], Path]:
        """The weight files, and the config that belongs to them."""
        if self.path is None:
            return weight_files(self.folder), self.folder / "config.json"
        files, own = component_files(self.path, self.folder.name)
        return files, (own or self.folder) / "config.json"


def _from_config(slot: Slot[T], name: str, source: _Source, dtype: torch.dtype, events: EventBus) -> T:
    files, path = source.place()
    factory = active().registries[slot].load(name)
    with Archive(files, config=_public(read_json(path)), role=source.role) as archive:
        brings_map = hasattr(factory, "keymap")
        layout = None if brings_map else recognise(archive.header)
        config = dict(archive.header.config or {}) if layout is None else layout.config()
        component = skeleton(slot, name, config, path)
        keymap = KeyMap.of(cast("Any", component).keymap, archive.header.tensors) if layout is None else layout.keymap()
        report = fill(cast("nn.Module", component), archive, keymap, dtype=dtype)
    if source.path is not None:
        known = f", layout '{layout.name}'" if layout is not None else ""
        events.emit(Notice(f"the {source.role} is from '{source.path}' ({report}{known})"))
    cast("nn.Module", component).eval()
    return component


def skeleton(slot: Slot[T], name: str, config: Mapping[str, Any], path: Path) -> T:
    """A component on the meta device: built from its config, without weights.

    Args:
        slot: where it is registered.
        name: registered name.
        config: its settings, translated to ours.
        path: of the `config.json`, for messages.

    Raises:
        CheckpointMismatch: the config does not describe it.
    """
    factory: Callable[..., T] = active().registries[slot].load(name)
    idle = _IDLE.get(slot.name, frozenset())
    settings = {key: value for key, value in config.items() if key not in idle}
    _check_keys(factory, settings, path)
    try:
        with torch.device("meta"):
            return factory(**settings)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointMismatch(f"'{path}' does not describe a '{name}': {error}", "Fetch it again.") from error


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
