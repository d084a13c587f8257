"""A model on the meta device: its real modules at their real sizes, without a byte of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import nn

from easyanimate_core.engine.planner.releases import LENGTHS, Configs
from easyanimate_core.errors import CheckpointNotFound, EasyAnimateError, InvalidRequest
from easyanimate_core.interfaces import Storage
from easyanimate_core.pipeline.components import skeleton
from easyanimate_core.plugins import active
from easyanimate_core.presets import Preset
from easyanimate_core.slots import DENOISERS, IMAGE_ENCODERS, TEXT_ENCODERS, VAES

__all__ = ["Sketch", "Uncountable", "denoiser_size", "folder_of", "parameters_of", "sketch"]

_LONGEST: Final = 256
"""Text tokens that no tokenizer's own length exceeds."""


class Uncountable(InvalidRequest):
    """A third party's component that cannot be built or run without weights, so that nothing can be foretold."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the planner cannot count {what}", "Name a placement: --offload model, for example.")


@dataclass(frozen=True, slots=True)
class Sketch:
    """A model on the meta device.

    Attributes:
        modules: by role, as a toolbox names them, in the storage that was asked for.
        loading: bytes of main memory that reading takes at most, component after component.
        largest: bytes of the largest weight, before it is stored.
    """

    modules: Mapping[str, nn.Module]
    loading: int
    largest: int


def sketch(preset: Preset, folder: Path | None, dtype: torch.dtype, storage: Storage) -> Sketch:
    """Build a model on the meta device.

    Args:
        preset: what it is.
        folder: its checkpoint, if it is at hand; else its sizes are those of the release.
        dtype: of the weights.
        storage: what they are kept as.

    Raises:
        InvalidRequest: there is no checkpoint, and the release's sizes are not known.
        Uncountable: a component is no torch module.
    """
    modules: dict[str, nn.Module] = {}
    kept = loading = largest = 0
    for role, make in _makers(preset, Configs(preset, folder)):
        with _default(dtype):
            module = make()
        if not isinstance(module, nn.Module):
            raise Uncountable(f"'{type(module).__name__}', which is no torch module")
        largest = max([largest, *(tensor.nbytes for tensor in module.parameters())])
        loading = max(loading, kept + _size(module))
        storage.store(role.split("_")[0], module)
        kept += _size(module)
        modules[role] = module.eval()
    return Sketch(modules, loading, largest)


def denoiser_size(preset: Preset, folder: Path) -> int:
    """Parameters of a checkpoint's denoiser, as its config says.

    Raises:
        CheckpointError: the config does not describe it.
        Uncountable: it is no torch module.
    """
    denoiser = dict(_makers(preset, Configs(preset, folder)))["denoiser"]()
    if not isinstance(denoiser, nn.Module):
        raise Uncountable(f"'{type(denoiser).__name__}', which is no torch module")
    return parameters_of(denoiser)


def parameters_of(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new weights are of this type, on the meta device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)


def _size(module: nn.Module) -> int:
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def _makers(preset: Preset, configs: Configs) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What builds each component, by role, in the order in which they are read."""
    names = preset.components
    for i, name in enumerate(names.text_encoders):
        suffix = f"_{i + 1}" if i else ""
        yield f"text{suffix}", partial(_text, preset, configs, name, suffix)
    if names.image_encoder is not None:
        yield "image", partial(active().registries[IMAGE_ENCODERS].load(names.image_encoder), configs.image(), {})
    settings = preset.settings_of("denoiser", half=False)
    config, path = {**configs.denoiser(), **settings}, configs.path("transformer")
    yield "denoiser", partial(skeleton, DENOISERS, names.denoiser, config, path)
    settings = preset.settings_of("vae", half=False)
    yield "vae", partial(skeleton, VAES, names.vae, {**configs.vae(), **settings}, configs.path("vae"))


def _text(preset: Preset, configs: Configs, name: str, suffix: str) -> Any:
    """A text encoder; of a release without its tokenizer, which only counts here."""
    factory: Any = active().registries[TEXT_ENCODERS].load(name)
    length, tokenizer = preset.text_length, configs.tokenizer(suffix)
    counting: Any = SimpleNamespace(chat_template="", model_max_length=_LONGEST)
    if tokenizer is None and length is None:
        length = LENGTHS.get((preset.components.denoiser, name), LENGTHS.get(("", name), _LONGEST))
    settings = preset.settings_of("text_encoder", half=False)
    return factory(configs.text(name, suffix), tokenizer or counting, max_length=length, **settings)


def folder_of(preset: Preset, weights: str | None) -> Path | None:
    """The checkpoint's folder; `None` when it is not at hand and was not named.

    Raises:
        CheckpointNotFound: it was named, and is not there.
    """
    from easyanimate_core.pipeline.assemble import locate

    try:
        return locate(preset, weights)
    except CheckpointNotFound:
        if weights is not None:
            raise
        return None
    except EasyAnimateError:
        return None
