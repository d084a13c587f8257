"""A tiny V4: its transformer reads a BERT of width 24 and an mT5 of width 32, and a picture's 9 tokens of width 20."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from easyanimate_core.checkpoints.save import save_component, write_json
from easyanimate_core.denoisers.hunyuan import Hunyuan
from easyanimate_core.testing.tiny.folders import cast, seeded, stirred
from easyanimate_core.testing.tiny.texts import write_bert, write_clip, write_t5
from easyanimate_core.testing.tiny.vaes import write_vae

__all__ = ["SCHEDULER_CONFIG", "TRANSFORMER_CONFIG", "write_checkpoint", "write_scheduler", "write_transformer"]

TRANSFORMER_CONFIG: Final[Mapping[str, Any]] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 64,
    "hidden_size": 32,
    "num_layers": 4,
    "mlp_ratio": 2.0,
    "learn_sigma": True,
    "cross_attention_dim": 24,
    "cross_attention_dim_t5": 32,
    "pooled_projection_dim": 16,
    "text_len": 16,
    "text_len_t5": 24,
    "n_query": 4,
    "projection_dim": 20,
    "norm_type": "layer_norm",
    "activation_fn": "gelu-approximate",
}
"""`transformer/config.json` of `write_transformer` for text to video."""

SCHEDULER_CONFIG: Final[Mapping[str, Any]] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.03,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "thresholding": False,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "variance_type": "fixed_small",
}
"""`scheduler/scheduler_config.json`: HunyuanDiT's kind, with settings of the samplers that it was converted from."""


def write_checkpoint(
    folder: str | Path, *, inlets: bool = True, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a complete checkpoint with random weights.

    Args:
        folder: gets `transformer/`, `vae/`, `scheduler/`, `text_encoder/` and `tokenizer/` of a BERT, `text_encoder_2/`
            and `tokenizer_2/` of an mT5 and, with inlets, `image_encoder/`.
        inlets: for image to video, as released; for text to video otherwise.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    folder = Path(folder)
    write_transformer(folder / "transformer", inlets=inlets, seed=seed, dtype=dtype)
    write_vae(folder / "vae", "v4", seed=seed, dtype=dtype)
    write_bert(folder / "text_encoder", folder / "tokenizer", seed=seed, dtype=dtype)
    write_t5(folder / "text_encoder_2", folder / "tokenizer_2", model_type="mt5", seed=seed, dtype=dtype)
    write_scheduler(folder / "scheduler")
    if inlets:
        write_clip(folder / "image_encoder", seed=seed, dtype=dtype)
    return folder


def write_transformer(
    folder: str | Path, *, inlets: bool = True, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write the `transformer/` folder of a model with random weights.

    Args:
        folder: becomes the component's folder.
        inlets: an image-to-video model, with the inlets `mask` (4 channels), `masked_video` (4 channels) and
            `image_tokens` (20); one for text to video otherwise.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    config = {**TRANSFORMER_CONFIG, "in_channels": 12 if inlets else 4}
    with seeded(seed):
        weights = stirred(Hunyuan(**config))
    return save_component(Path(folder), {"_class_name": "HunyuanTransformer3DModel", **config}, cast(weights, dtype))


def write_scheduler(folder: str | Path) -> Path:
    """Write the `scheduler/` folder.

    Returns:
        The folder.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "scheduler_config.json", SCHEDULER_CONFIG)
    return place
