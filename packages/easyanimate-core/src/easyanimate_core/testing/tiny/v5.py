"""A tiny V5: the joint transformer with two texts, a BERT of width 24 and an mT5 of width 32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from easyanimate_core.checkpoints.save import save_component, write_json
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.testing.tiny.folders import cast, seeded, stirred
from easyanimate_core.testing.tiny.texts import write_bert, write_t5
from easyanimate_core.testing.tiny.vaes import write_vae

__all__ = ["SCHEDULER_CONFIG", "TRANSFORMER_CONFIG", "write_checkpoint", "write_scheduler", "write_transformer"]

TRANSFORMER_CONFIG: Final[Mapping[str, Any]] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "num_layers": 2,
    "mmdit_layers": 1,
    "time_embed_dim": 32,
    "text_embed_dim": 24,
    "text_embed_dim_t5": 32,
    "add_norm_text_encoder": False,
    "time_position_encoding_type": "3d_rope",
    "resize_inpaint_mask_directly": True,
    "enable_clip_in_inpaint": False,
    "enable_text_attention_mask": False,
    "add_noise_in_inpaint_model": True,
}
"""`transformer/config.json` of `write_transformer` for text to video."""

SCHEDULER_CONFIG: Final[Mapping[str, Any]] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
}
"""`scheduler/scheduler_config.json`: velocity, and nothing of the data in the last level of noise."""


def write_checkpoint(
    folder: str | Path, *, in_channels: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a complete checkpoint with random weights.

    Args:
        folder: gets `transformer/`, `vae/`, `scheduler/`, `text_encoder/` and `tokenizer/` of a BERT, `text_encoder_2/`
            and `tokenizer_2/` of an mT5.
        in_channels: of the transformer; see `write_transformer`.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    folder = Path(folder)
    write_transformer(folder / "transformer", in_channels=in_channels, seed=seed, dtype=dtype)
    write_vae(folder / "vae", "v5", seed=seed, dtype=dtype)
    write_bert(folder / "text_encoder", folder / "tokenizer", seed=seed, dtype=dtype)
    write_t5(folder / "text_encoder_2", folder / "tokenizer_2", model_type="mt5", seed=seed, dtype=dtype)
    write_scheduler(folder / "scheduler")
    return folder


def write_transformer(
    folder: str | Path, *, in_channels: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write the `transformer/` folder of a model with random weights.

    Args:
        folder: becomes the component's folder.
        in_channels: 16 for text to video, 33 with `mask` (1) and `masked_video` (16), 32 with `control` (16).
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    config = {**TRANSFORMER_CONFIG, "in_channels": in_channels}
    with seeded(seed):
        weights = stirred(MMDiT(**config))
    return save_component(
        Path(folder), {"_class_name": "EasyAnimateTransformer3DModel", **config}, cast(weights, dtype)
    )


def write_scheduler(folder: str | Path) -> Path:
    """Write the `scheduler/` folder.

    Returns:
        The folder.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "scheduler_config.json", SCHEDULER_CONFIG)
    return place
