"""Configs and tokenizer of nano: a released checkpoint's folder without weights."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from easyanimate_core.checkpoints.save import write_json
from easyanimate_core.testing.tiny import SCHEDULER_CONFIG, write_tokenizer
from easyanimate_train.shapes import all_scenes, captions

__all__ = ["write_blueprint"]

_CHANNELS = 12
_TEXT_WIDTH = 128
_TOKENS = 40
_VOCABULARY = 512

_TRANSFORMER = MappingProxyType(
    {
        "_class_name": "EasyAnimateTransformer3DModel",
        "num_attention_heads": 3,
        "attention_head_dim": 64,
        "in_channels": _CHANNELS,
        "out_channels": _CHANNELS,
        "patch_size": 2,
        "sample_width": 8,
        "sample_height": 8,
        "num_layers": 4,
        "mmdit_layers": 2,
        "time_embed_dim": 32,
        "text_embed_dim": _TEXT_WIDTH,
        "text_embed_dim_t5": None,
        "add_norm_text_encoder": True,
        "time_position_encoding_type": "3d_rope",
        "resize_inpaint_mask_directly": True,
        "enable_clip_in_inpaint": False,
        "add_noise_in_inpaint_model": True,
    }
)

_VAE = MappingProxyType(
    {
        "_class_name": "AutoencoderKLMagvit",
        "block_out_channels": [16, 32, 48, 64],
        "down_block_types": ["SpatialDownBlock3D", *["SpatialTemporalDownBlock3D"] * 3],
        "up_block_types": ["SpatialUpBlock3D", *["SpatialTemporalUpBlock3D"] * 3],
        "latent_channels": _CHANNELS,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "mid_block_use_attention": False,
        "mid_block_attention_type": "spatial",
        "spatial_group_norm": True,
        "slice_mag_vae": False,
        "cache_mag_vae": True,
        "mini_batch_encoder": 4,
        "mini_batch_decoder": 1,
        "scaling_factor": 1.0,
    }
)

_TEXT: MappingProxyType[str, Any] = MappingProxyType(
    {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "bos_token_id": None,
        "eos_token_id": None,
        "hidden_size": _TEXT_WIDTH,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": _TEXT_WIDTH, "num_heads": 2, "in_channels": 3},
    }
)


def write_blueprint(folder: Path) -> Path:
    """Write nano's configs and train its tokenizer on every caption of the world.

    Returns:
        The folder: `transformer/ vae/ text_encoder/` with `config.json`, `tokenizer/` and `scheduler/`.
    """
    corpus = [text for scene in all_scenes() for text in captions(scene)[::5]] + [captions(s)[-1] for s in all_scenes()]
    chat = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"] * 2000
    tokenizer = write_tokenizer(
        folder / "tokenizer", corpus=[*corpus, *chat], vocabulary=_VOCABULARY, max_length=_TOKENS
    )
    for name, config in (
        ("transformer", _TRANSFORMER),
        ("vae", _VAE),
        ("text_encoder", {**_TEXT, "vocab_size": len(tokenizer)}),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(folder / name / "config.json", dict(config))
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    return folder
