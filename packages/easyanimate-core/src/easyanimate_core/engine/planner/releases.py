"""What the `config.json` files of the releases say about sizes, for models whose weights are not at hand.

Where a class is as large by default as its release, nothing stands here. Depths and widths of denoisers are those of
`checkpoints.releases`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from easyanimate_core.checkpoints.releases import RELEASES, Release
from easyanimate_core.checkpoints.source import component_folder, parts, read_json
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.presets import Preset

__all__ = ["LENGTHS", "Configs"]

_MMDIT: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "num_attention_heads": 48,
        "attention_head_dim": 64,
        "out_channels": 16,
        "time_embed_dim": 512,
        "resize_inpaint_mask_directly": True,
        "add_noise_in_inpaint_model": True,
        "enable_clip_in_inpaint": False,
    }
)
_MAGVIT: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        "up_block_types": ("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3),
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "slice_mag_vae": False,
        "latent_channels": 4,
        "mid_block_attention_type": "3d",
        "mini_batch_encoder": 8,
        "mini_batch_decoder": 2,
        "scaling_factor": 0.18215,
    }
)
_V5_VAE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **_MAGVIT,
        "latent_channels": 16,
        "mid_block_use_attention": False,
        "mid_block_attention_type": "spatial",
        "spatial_group_norm": True,
        "cache_mag_vae": True,
        "mini_batch_encoder": 4,
        "mini_batch_decoder": 1,
        "scaling_factor": 0.7125,
    }
)
_VAES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "v1": {
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "latent_channels": 4,
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "scaling_factor": 0.18215,
        },
        "v2": {**_MAGVIT, "slice_mag_vae": True, "mini_batch_encoder": 9, "mini_batch_decoder": 3},
        "v3": {**_MAGVIT, "slice_compression_vae": True},
        "v4": {**_MAGVIT, "cache_compression_vae": True},
        "v5": _V5_VAE,
        "v5.1": _V5_VAE,
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
_T5: Final[Mapping[str, Any]] = MappingProxyType(
    {"model_type": "t5", "d_kv": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu"}
)
# T5 1.1 XXL as PixArt reads it; BERT and mT5 XL as HunyuanDiT reads them.
_TEXTS: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = MappingProxyType(
    {
        ("pixart", "t5"): {**_T5, "d_model": 4096, "d_ff": 10240, "num_heads": 64, "vocab_size": 32128},
        ("", "t5"): {**_T5, "model_type": "mt5", "d_model": 2048, "d_ff": 5120, "num_heads": 32, "vocab_size": 250112},
        ("", "bert"): {
            "model_type": "bert",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "vocab_size": 47020,
        },
        ("", "qwen2-vl"): _QWEN2_VL,
    }
)
_CLIP: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 224,
        "projection_dim": 768,
    }
)
"""ViT-L/14."""

LENGTHS: Final[Mapping[tuple[str, str], int]] = MappingProxyType({("pixart", "t5"): 120, ("", "bert"): 77})
"""Tokens to which a release's tokenizer pads, by denoiser and text encoder, where they are fewer than 256."""


class Configs:
    """Configs of a model's components: the checkpoint's own where it is at hand, else those of the release.

    Args:
        preset: what the model is.
        folder: its checkpoint; `None` when it is not at hand.

    Raises:
        InvalidRequest: it is not at hand, and no release is known that is like it.
    """

    def __init__(self, preset: Preset, folder: Path | None) -> None:
        self._preset, self._parts = preset, None if folder is None else parts(folder)
        self._folder = folder or Path("release")
        self._release = _release(preset)
        if folder is None and self._release is None:
            raise InvalidRequest(
                f"how large '{preset.name}' is can only be read from its checkpoint",
                f"Download it (easyanimate models pull {preset.name}), or give --weights FOLDER.",
            )

    def path(self, part: str) -> Path:
        """A component's `config.json`, or what messages call it."""
        if self._parts is None:
            return self._folder / part / "config.json"
        (place,) = component_folder(self._folder, part)
        return place / "config.json"

    def tokenizer(self, suffix: str) -> Path | None:
        """Folder of a tokenizer; `None` of a release."""
        return None if self._parts is None else component_folder(self._folder, f"tokenizer{suffix}")[0]

    def denoiser(self) -> dict[str, Any]:
        """Of the transformer."""
        if self._parts is not None:
            return self._read("transformer")
        assert self._release is not None
        anatomy, known = self._release.anatomy, {"in_channels": self._preset.in_channels}
        if anatomy.family != "mmdit":
            return known
        second = self._preset.generation == "v5"
        texts = {"text_embed_dim": anatomy.text_width, "text_embed_dim_t5": 2048 if second else None}
        depths = {"num_layers": anatomy.layers, "mmdit_layers": anatomy.mmdit_layers}
        return {**_MMDIT, **texts, **depths, **known, "add_norm_text_encoder": not second}

    def vae(self) -> dict[str, Any]:
        """Of the VAE."""
        return dict(_VAES[self._preset.generation]) if self._parts is None else self._read("vae")

    def text(self, name: str, suffix: str) -> dict[str, Any]:
        """Of a text encoder, by its registered name."""
        if self._parts is not None:
            return read_json(self.path(f"text_encoder{suffix}"))
        known = _TEXTS.get((self._preset.components.denoiser, name)) or _TEXTS[("", name)]
        return dict(known)

    def image(self) -> dict[str, Any]:
        """Of the image encoder."""
        return dict(_CLIP) if self._parts is None else read_json(self.path("image_encoder"))

    def _read(self, part: str) -> dict[str, Any]:
        return {key: value for key, value in read_json(self.path(part)).items() if not key.startswith("_")}


def _release(preset: Preset) -> Release | None:
    """The release that a preset is of; V1's image model is that of its video model."""
    name = "v1" if preset.name == "v1-image" else preset.name
    return next((release for release in RELEASES if release.preset == name), None)
