"""The layout of diffusers' port of V5.1: one rename, and configs that leave out what the port decides itself.

Source: the parameter names and constructor defaults of diffusers' `EasyAnimateTransformer3DModel` and
`AutoencoderKLMagvit`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from easyanimate_core.checkpoints.easyanimate import is_vae
from easyanimate_core.checkpoints.keymap import KeyMap, Rename

if TYPE_CHECKING:
    from collections.abc import Iterable

    from easyanimate_core.checkpoints.header import Header

__all__ = ["DiffusersFormat", "from_diffusers_name", "to_diffusers", "to_diffusers_config", "to_diffusers_name"]

# Text branch of a block's attention: the port keeps it inside `attn1`.
_OURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "to_q": "add_q_proj",
        "to_k": "add_k_proj",
        "to_v": "add_v_proj",
        "to_out.0": "to_add_out",
        "norm_q": "norm_added_q",
        "norm_k": "norm_added_k",
    }
)
_THEIRS: Final[Mapping[str, str]] = MappingProxyType({theirs: ours for ours, theirs in _OURS.items()})
_PORTED: Final = re.compile(r"(.*transformer_blocks\.\d+\.)attn1\.(" + "|".join(_THEIRS) + r")(\..+)?$")
_RELEASED: Final = re.compile(r"(.*transformer_blocks\.\d+\.)attn2\.(" + "|".join(map(re.escape, _OURS)) + r")(\..+)?$")

# What the port's constructors take when a config says nothing, where ours take something else.
_DENOISER_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "num_attention_heads": 48,
        "num_layers": 48,
        "mmdit_layers": 48,
        "text_embed_dim": 3584,
        "text_embed_dim_t5": None,
        "add_noise_in_inpaint_model": True,
        "resize_inpaint_mask_directly": True,
        "enable_clip_in_inpaint": False,
        "add_ref_latent_in_control_model": True,
    }
)
# The port has one VAE, that of V5 and V5.1; ours has to be told.
_VAE_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "cache_mag_vae": True,
        "slice_mag_vae": False,
        "mid_block_use_attention": False,
        "mid_block_attention_type": "spatial",
        "mini_batch_encoder": 4,
        "mini_batch_decoder": 1,
    }
)
_VAE_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {"latent_channels": 16, "scaling_factor": 0.7125, "spatial_group_norm": True, "norm_num_groups": 32}
)
_DENOISER_KEYS: Final = (
    "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "patch_size", "sample_width",
    "sample_height", "activation_fn", "timestep_activation_fn", "freq_shift", "num_layers", "mmdit_layers", "dropout",
    "time_embed_dim", "add_norm_text_encoder", "text_embed_dim", "text_embed_dim_t5", "norm_eps",
    "norm_elementwise_affine", "flip_sin_to_cos", "time_position_encoding_type", "after_norm",
    "resize_inpaint_mask_directly", "enable_text_attention_mask", "add_noise_in_inpaint_model",
)  # fmt: skip
_VAE_KEYS: Final = (
    "in_channels", "latent_channels", "out_channels", "block_out_channels", "down_block_types", "up_block_types",
    "layers_per_block", "act_fn", "norm_num_groups", "scaling_factor", "spatial_group_norm",
)  # fmt: skip


class DiffusersFormat:
    """Components of V5.1 checkpoints in diffusers' layout."""

    def match(self, header: Header) -> float | None:
        """1 for a denoiser with the port's names, and for a VAE whose config knows no temporal scheme."""
        if is_vae(header):
            return 1.0 if header.config and not any(key.endswith("_vae") for key in header.config) else None
        return 1.0 if any(_PORTED.match(name) for name in header.tensors) else None

    def keymap(self, header: Header) -> KeyMap:
        """The text branch under its released names; all else stays."""
        return _renamed(header.tensors, from_diffusers_name)

    def config(self, header: Header) -> dict[str, Any]:
        """The component's settings as our modules take them."""
        given = dict(header.config or {})
        if is_vae(header):
            return {**_VAE_DEFAULTS, **given, **_VAE_SETTINGS}
        return {**_DENOISER_DEFAULTS, **given}


def from_diffusers_name(name: str) -> str:
    """A parameter's or module's released name from the port's."""
    found = _PORTED.match(name)
    return name if found is None else f"{found[1]}attn2.{_THEIRS[found[2]]}{found[3] or ''}"


def to_diffusers_name(name: str) -> str:
    """The port's name of a parameter or module from its released one."""
    found = _RELEASED.match(name)
    return name if found is None else f"{found[1]}attn1.{_OURS[found[2]]}{found[3] or ''}"


def to_diffusers(names: Iterable[str]) -> KeyMap:
    """The map from released names to the port's."""
    return _renamed(names, to_diffusers_name)


def to_diffusers_config(config: Mapping[str, Any], *, vae: bool) -> dict[str, Any]:
    """A released config as the port takes it: settings that its constructor does not know are left out.

    Args:
        config: released, or of one of our modules.
        vae: whether it is a VAE's; a denoiser's otherwise.
    """
    class_name = "AutoencoderKLMagvit" if vae else "EasyAnimateTransformer3DModel"
    keys = _VAE_KEYS if vae else _DENOISER_KEYS
    kept = {key: config[key] for key in keys if key in config}
    if not vae and "mmdit_layers" in kept and "num_layers" in kept:
        kept["mmdit_layers"] = min(kept["mmdit_layers"], kept["num_layers"])
    return {"_class_name": class_name, **kept}


def _renamed(names: Iterable[str], rename: Any) -> KeyMap:
    return KeyMap(tuple(Rename(name, new) for name in names if (new := rename(name)) != name))
