"""A model on the meta device: its real modules at their real sizes, without a byte of weights.

Sizes come from the checkpoint's own configs where it is at hand, else from the configs of the release.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

import torch
from torch import nn

from easyanimate_core.checkpoints.source import read_json
from easyanimate_core.errors import CheckpointNotFound, EasyAnimateError, InvalidRequest
from easyanimate_core.interfaces import Storage
from easyanimate_core.pipeline.components import skeleton
from easyanimate_core.plugins import active
from easyanimate_core.presets import Preset
from easyanimate_core.slots import DENOISERS, TEXT_ENCODERS, VAES

__all__ = ["LENGTH", "Sketch", "folder_of", "sketch"]

LENGTH: Final = 256
"""Text tokens where the preset leaves them to the tokenizer; what the original cuts prompts to."""

_MMDIT: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "num_attention_heads": 48,
        "attention_head_dim": 64,
        "out_channels": 16,
        "time_embed_dim": 512,
        "text_embed_dim": 3584,
        "text_embed_dim_t5": None,
        "add_norm_text_encoder": True,
        "resize_inpaint_mask_directly": True,
        "add_noise_in_inpaint_model": True,
        "enable_clip_in_inpaint": False,
    }
)
_DEPTHS: Final = MappingProxyType(
    {
        **dict.fromkeys(("v5.1-12b", "v5.1-12b-inp", "v5.1-12b-control", "v5.1-12b-camera"), (48, 48)),
        **dict.fromkeys(("v5.1-7b", "v5.1-7b-inp", "v5.1-7b-control", "v5.1-7b-camera"), (36, 18)),
    }
)
"""Blocks, and how many of them have text weights of their own, of the released V5.1 models."""

_MAGVIT: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        "up_block_types": ("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3),
        "latent_channels": 16,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "mid_block_use_attention": False,
        "mid_block_attention_type": "spatial",
        "spatial_group_norm": True,
        "slice_mag_vae": False,
        "cache_mag_vae": True,
        "mini_batch_encoder": 4,
        "mini_batch_decoder": 1,
        "scaling_factor": 0.7125,
    }
)
_QWEN2_VL: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "model_type": "qwen2_vl",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": False,
    }
)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A model on the meta device.

    Attributes:
        modules: by role, `text`, `denoiser`, `vae`, in the storage that was asked for.
        loading: bytes of main memory that reading takes at most, component after component.
        largest: bytes of the largest component, before it is stored.
    """

    modules: Mapping[str, nn.Module]
    loading: int
    largest: int


def sketch(preset: Preset, folder: Path | None, dtype: torch.dtype, storage: Storage) -> Sketch:
    """Build a model on the meta device.

    Args:
        preset: what it is.
        folder: its checkpoint, if it is at hand.
        dtype: of the weights.
        storage: what they are kept as.

    Raises:
        InvalidRequest: there is no checkpoint, and the release's sizes are not known.
    """
    if folder is None and preset.name not in _DEPTHS:
        raise InvalidRequest(
            f"how large '{preset.name}' is can only be read from its checkpoint",
            f"Download it (easyanimate models pull {preset.name}), or give --weights FOLDER.",
        )
    modules: dict[str, nn.Module] = {}
    kept = loading = largest = 0
    for role, make in _makers(preset, folder).items():
        with _default(dtype):
            module = make()
        largest, loading = max(largest, _size(module)), max(loading, kept + _size(module))
        storage.store(role.split("_")[0], module)
        kept += _size(module)
        modules[role] = module.eval()
    return Sketch(modules, loading, largest)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new weights are of this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _size(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def _makers(preset: Preset, folder: Path | None) -> dict[str, Any]:
    """What builds each component, by role."""
    names = preset.components
    makers: dict[str, Any] = {}
    for i, name in enumerate(names.text_encoders):
        suffix = f"_{i + 1}" if i else ""
        makers[f"text{suffix}"] = lambda name=name, suffix=suffix: _text(
            name, folder, suffix, preset.text_length if folder is not None else preset.text_length or LENGTH
        )
    makers["denoiser"] = lambda: _denoiser(preset, folder)
    makers["vae"] = lambda: _built(VAES, names.vae, folder, "vae", _MAGVIT, preset.settings_of("vae", half=False))
    return makers


def _denoiser(preset: Preset, folder: Path | None) -> nn.Module:
    known: dict[str, Any] = {}
    if folder is None:
        layers, own_text = _DEPTHS[preset.name]
        known = {**_MMDIT, "num_layers": layers, "mmdit_layers": own_text, "in_channels": preset.in_channels}
    settings = preset.settings_of("denoiser", half=False)
    return _built(DENOISERS, preset.components.denoiser, folder, "transformer", known, settings)


def _built(
    slot: Any, name: str, folder: Path | None, part: str, known: Mapping[str, Any], settings: Mapping[str, Any]
) -> nn.Module:
    path = (folder or Path("release")) / part / "config.json"
    config = known if folder is None else read_json(path)
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    module = skeleton(slot, name, {**public, **settings}, path)
    assert isinstance(module, nn.Module)
    return module


def _text(name: str, folder: Path | None, suffix: str, length: int | None) -> nn.Module:
    """A text encoder; of a release without its tokenizer, which only counts here."""
    factory: Any = active().registries[TEXT_ENCODERS].load(name)
    tokenizer: Any = SimpleNamespace(chat_template="", model_max_length=length)
    config: Mapping[str, Any] = _QWEN2_VL
    if folder is not None:
        tokenizer = folder / f"tokenizer{suffix}"
        config = read_json(folder / f"text_encoder{suffix}" / "config.json")
    with torch.device("meta"):
        module = factory(dict(config), tokenizer, max_length=length)
    assert isinstance(module, nn.Module)
    return module


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
