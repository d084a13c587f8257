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
from easyanimate_core.interfaces import Denoiser, ImageEncoder, Sampler, TextEncoder, VideoVAE
from easyanimate_core.placing import Keep
from easyanimate_core.plugins import active
from easyanimate_core.registry import Registry, Slot
from easyanimate_core.schema import Choice
from easyanimate_core.slots import DENOISERS, IMAGE_ENCODERS, SAMPLERS, TEXT_ENCODERS, VAES
from easyanimate_core.validation import did_you_mean

__all__ = [
    "build_denoiser",
    "build_image_encoder",
    "build_sampler",
    "build_text_encoder",
    "build_vae",
    "described",
    "skeleton",
]

T = TypeVar("T")

# What averaging weights in training left in a released config.
_AVERAGED: Final = (
    "decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup",
)  # fmt: skip
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
# Keys that released configs carry and that no released code ever read.
_IDLE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {"denoisers": frozenset(_AVERAGED), "vaes": frozenset({"sample_size", "norm_type", "force_upcast"})}
)


def build_text_encoder(
    name: str,
    weights: Path,
    tokenizer: Path,
    *,
    max_length: int | None,
    dtype: torch.dtype,
    settings: Mapping[str, Any] = _NONE,
    keep: Keep | None = None,
) -> TextEncoder:
    """A text encoder of the slot `text_encoders`.

    Its factory is called with the content of `config.json`, the tokenizer's folder, `max_length` and settings. A method
    `keymap(name)`, if it has one, says under which name a stored tensor belongs into the module, or `None` for what
    is not to be read.

    Args:
        name: registered name.
        weights: the checkpoint's `text_encoder/` folder.
        tokenizer: the checkpoint's `tokenizer/` folder.
        max_length: tokens that prompts are padded to; what the tokenizer says when `None`.
        dtype: of the weights in memory.
        settings: further keywords of the factory.
        keep: gets every weight as it is read; see `checkpoints.load_into`.

    Raises:
        CheckpointError: config, tokenizer or weights do not fit.
    """
    config = read_json(weights / "config.json")
    with torch.device("meta"):
        factory: Callable[..., TextEncoder] = active().registries[TEXT_ENCODERS].load(name)
        encoder = factory(config, tokenizer, max_length=max_length, **settings)
    module = cast("nn.Module", encoder)
    load_into(module, weight_files(weights), keymap=getattr(encoder, "keymap", None), dtype=dtype, keep=keep)
    module.eval()
    return encoder


def build_image_encoder(name: str, weights: Path, *, dtype: torch.dtype, keep: Keep | None = None) -> ImageEncoder:
    """An image encoder of the slot `image_encoders`.

    Its factory is called with the content of `config.json` and of `preprocessor_config.json`, empty when there is
    none; a method `keymap(name)` as of a text encoder.

    Args:
        name: registered name.
        weights: the checkpoint's `image_encoder/` folder.
        dtype: of the weights in memory.
        keep: as of a text encoder.

    Raises:
        CheckpointError: configs or weights do not fit.
    """
    config, prepared = read_json(weights / "config.json"), weights / "preprocessor_config.json"
    with torch.device("meta"):
        factory = active().registries[IMAGE_ENCODERS].load(name)
        encoder = factory(config, read_json(prepared) if prepared.is_file() else {})
    module = cast("nn.Module", encoder)
    load_into(module, weight_files(weights), keymap=getattr(encoder, "keymap", None), dtype=dtype, keep=keep)
    module.eval()
    return encoder


def build_denoiser(
    name: str,
    folder: Path,
    *,
    dtype: torch.dtype,
    path: Path | None = None,
    motion_path: Path | None = None,
    settings: Mapping[str, Any] = _NONE,
    events: EventBus = SILENT,
    keep: Keep | None = None,
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
        motion_path: weights that complete the others: the file, or its folder, of the motion module for an image model.
            Together they have to be whole, as a checkpoint by itself has.
        settings: entries above those of `config.json`.
        events: hears, in a `Notice`, what other weights were read.
        keep: gets every weight as it is read; see `checkpoints.load_into`.

    Raises:
        CheckpointError: config or weights do not fit.
    """
    return _from_config(DENOISERS, name, _Source("denoiser", folder, settings, path, motion_path), dtype, events, keep)


def build_vae(
    name: str,
    folder: Path,
    *,
    dtype: torch.dtype,
    path: Path | None = None,
    settings: Mapping[str, Any] = _NONE,
    events: EventBus = SILENT,
    keep: Keep | None = None,
) -> VideoVAE:
    """A VAE of the slot `vaes`, from the checkpoint's `vae/` folder; all else as of a denoiser.

    Raises:
        CheckpointError: config or weights do not fit.
    """
    return _from_config(VAES, name, _Source("vae", folder, settings, path), dtype, events, keep)


def build_sampler(choice: Choice[Sampler], folder: Path | None, settings: Mapping[str, Any] = _NONE) -> Sampler:
    """A sampler with the options of the checkpoint's `scheduler/` folder, then others, then those of the request.

    Args:
        choice: of the request, with the options that it gives.
        folder: the checkpoint's `scheduler/`.
        settings: options above those of `scheduler_config.json`, where the sampler has them.

    Raises:
        CheckpointError: `scheduler_config.json` does not fit.
        InvalidOptions: the request's options do not fit.
    """
    registry = active().registries[SAMPLERS]
    known = _settings(registry, choice.qualified)
    stored: dict[str, Any] = {}
    if folder is not None:
        path = folder / "scheduler_config.json"
        config = read_json(path)
        stored = _public(config)
        written_for = str(config.get("_class_name", ""))
        if written_for in registry and registry.get(written_for).qualified != choice.qualified:
            # Written for another sampler: what both know is meant for both.
            stored = {key: value for key, value in stored.items() if key in known}
        else:
            # Configs keep what was meant for the sampler that they were converted from.
            siblings = [entry.qualified for entry in registry if entry.owner == choice.owner]
            foreign = frozenset().union(*(_settings(registry, name) for name in siblings)) - known
            stored = {key: value for key, value in stored.items() if key not in foreign}
        try:
            registry.validate(choice.qualified, stored)
        except EasyAnimateError as error:
            raise CheckpointMismatch(f"'{path}': {error.message}", error.hint) from error
    above = {key: value for key, value in settings.items() if key in known}
    return registry.create(choice.qualified, {**stored, **above, **choice.given})


def _settings(registry: Registry[Sampler], name: str) -> frozenset[str]:
    """Names of a sampler's settings."""
    model = registry.options_model(name)
    return frozenset() if model is None else frozenset(model.model_fields)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a component's weights are: in the checkpoint's folder, or in what the user gave instead; and what is said
    about it besides its config."""

    role: str
    folder: Path
    settings: Mapping[str, Any]
    path: Path | None = None
    completing: Path | None = None

    def place(self) -> tuple[tuple[Path, ...], Path]:
        """The weight files, and the config that belongs to them."""
        more = () if self.completing is None else component_files(self.completing, self.folder.name)[0]
        if self.path is None:
            return (*weight_files(self.folder), *more), self.folder / "config.json"
        files, own = component_files(self.path, self.folder.name)
        return (*files, *more), (own or self.folder) / "config.json"

    def given(self) -> str:
        """What the user gave instead of the checkpoint's own weights, or besides them; empty when nothing."""
        return "' and '".join(str(path) for path in (self.path, self.completing) if path is not None)


def _from_config(
    slot: Slot[T], name: str, source: _Source, dtype: torch.dtype, events: EventBus, keep: Keep | None
) -> T:
    files, path = source.place()
    with Archive(files, config=_public(read_json(path)), role=source.role) as archive:
        component, keymap, layout = described(slot, name, archive, source.settings, path)
        report = fill(cast("nn.Module", component), archive, keymap, dtype=dtype, keep=keep)
    if given := source.given():
        known = f", layout '{layout}'" if layout else ""
        events.emit(Notice(f"the {source.role} is from '{given}' ({report}{known})"))
    cast("nn.Module", component).eval()
    return component


def described(
    slot: Slot[T], name: str, archive: Archive, settings: Mapping[str, Any], path: Path
) -> tuple[T, KeyMap, str]:
    """The component that an archive should fill, on the meta device; what its tensors are called there; their layout.

    Args:
        slot: where it is registered.
        name: registered name.
        archive: its tensors, with its config.
        settings: entries above those of the config.
        path: of the `config.json`, for messages.

    Returns:
        The layout's name is empty for a component that knows its names itself.

    Raises:
        CheckpointError: the config does not describe it, or no layout is known that has such tensors.
    """
    header = archive.header
    if not hasattr(active().registries[slot].load(name), "keymap"):
        layout = recognise(header)
        return skeleton(slot, name, {**layout.config(), **settings}, path), layout.keymap(), layout.name
    component = skeleton(slot, name, {**(header.config or {}), **settings}, path)
    return component, KeyMap.of(cast("Any", component).keymap, header.tensors), ""


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
