"""A tiny V5.1 checkpoint: Qwen2-VL text encoder, joint transformer, Magvit VAE, flow scheduler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from easyanimate_core.checkpoints.save import save_component, write_json
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.testing.tiny.folders import cast, seeded
from easyanimate_core.text.qwen2_vl import Qwen2VLTextEncoder
from easyanimate_core.vae.magvit import Magvit

__all__ = [
    "CHAT_TEMPLATE",
    "SCHEDULER_CONFIG",
    "TEXT_ENCODER_CONFIG",
    "TRANSFORMER_CONFIG",
    "VAE_CONFIG",
    "make_tokenizer",
    "write_checkpoint",
    "write_tokenizer",
]

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}{{ content['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What the released Qwen2-VL template makes of turns that hold text only."""

TRANSFORMER_CONFIG: Final[Mapping[str, Any]] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "num_layers": 2,
    "mmdit_layers": 1,
    "time_embed_dim": 32,
    "text_embed_dim": 32,
    "text_embed_dim_t5": None,
    "add_norm_text_encoder": True,
    "time_position_encoding_type": "3d_rope",
    "resize_inpaint_mask_directly": True,
    "enable_clip_in_inpaint": False,
    "add_noise_in_inpaint_model": True,
}
"""`transformer/config.json` of `write_checkpoint`: the real classes' settings, small."""

VAE_CONFIG: Final[Mapping[str, Any]] = {
    "block_out_channels": [4, 4, 8, 8],
    "down_block_types": ["SpatialDownBlock3D", *["SpatialTemporalDownBlock3D"] * 3],
    "up_block_types": ["SpatialUpBlock3D", *["SpatialTemporalUpBlock3D"] * 3],
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "mid_block_use_attention": False,
    "mid_block_attention_type": "spatial",
    "spatial_group_norm": True,
    "slice_mag_vae": False,
    "cache_mag_vae": True,
    "mini_batch_encoder": 4,
    "mini_batch_decoder": 1,
    "scaling_factor": 0.7125,
}
"""`vae/config.json` of `write_checkpoint`."""

SCHEDULER_CONFIG: Final[Mapping[str, Any]] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
}
"""`scheduler/scheduler_config.json` as released with V5.1."""

TEXT_ENCODER_CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": False,
    "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "in_channels": 3},
}
"""`text_encoder/config.json` of `write_checkpoint`, flat as released; `vocab_size` comes from the tokenizer."""

_CORPUS = (
    "a red circle moving right on a blue background",
    "a small green star growing on a white background",
    "You are a helpful assistant.",
    "system user assistant",
)

_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write_checkpoint(
    folder: str | Path,
    *,
    seed: int = 0,
    in_channels: int = 16,
    max_length: int = 64,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a complete text-to-video checkpoint with random weights: real classes, a few hundred kilobytes.

    Args:
        folder: gets `transformer/`, `vae/`, `scheduler/`, `text_encoder/` and `tokenizer/`.
        seed: same seed, same weights.
        in_channels: of the denoiser; more than 16 makes room for inlets.
        max_length: tokens that prompts are padded to.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    folder = Path(folder)
    tokenizer = write_tokenizer(folder / "tokenizer", max_length=max_length)
    text_config = {**TEXT_ENCODER_CONFIG, "vocab_size": len(tokenizer)}
    transformer_config = {**TRANSFORMER_CONFIG, "in_channels": in_channels}
    with seeded(seed):
        transformer = MMDiT(**transformer_config).state_dict()
        vae = Magvit(**VAE_CONFIG).state_dict()
        text = Qwen2VLTextEncoder(text_config, tokenizer).released_state_dict()
    transformer_config["_class_name"] = "EasyAnimateTransformer3DModel"
    save_component(folder / "transformer", transformer_config, cast(transformer, dtype))
    save_component(folder / "vae", {"_class_name": "AutoencoderKLMagvit", **VAE_CONFIG}, cast(vae, dtype))
    save_component(folder / "text_encoder", text_config, cast(text, dtype), weights="model.safetensors")
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    return folder


def write_tokenizer(
    folder: str | Path, *, corpus: Sequence[str] = _CORPUS, vocabulary: int = 320, max_length: int = 64
) -> Qwen2Tokenizer:
    """Train a byte-level tokenizer of Qwen2's kind on a few strings and write it with its chat template.

    Args:
        folder: becomes a released `tokenizer/` folder.
        corpus: any text can be encoded; this text in fewer tokens.
        vocabulary: at most this many tokens, at least 256 bytes and the special tokens.
        max_length: `model_max_length`.

    Returns:
        The tokenizer as it loads from the folder.
    """
    tokenizer = make_tokenizer(corpus=corpus, vocabulary=vocabulary, max_length=max_length)
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_tokenizer(*, corpus: Sequence[str] = _CORPUS, vocabulary: int = 320, max_length: int = 64) -> Qwen2Tokenizer:
    """The tokenizer of `write_tokenizer`, without writing it."""
    # Training has to see text exactly as the finished tokenizer will.
    untrained = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = untrained.normalizer, untrained.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    trained = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        model_max_length=max_length,
        padding_side="right",
        extra_special_tokens=list(_SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
    )
