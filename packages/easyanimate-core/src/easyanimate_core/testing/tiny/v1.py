"""A tiny V1: an image model's folder as PixArt releases it, and the motion module for it, a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from easyanimate_core.checkpoints.save import save_component, write_json, write_tensors
from easyanimate_core.denoisers.pixart import PixArt
from easyanimate_core.testing.tiny.folders import cast, seeded, stirred
from easyanimate_core.testing.tiny.texts import write_t5
from easyanimate_core.testing.tiny.vaes import write_vae

__all__ = [
    "SCHEDULER_CONFIG",
    "TRANSFORMER_CONFIG",
    "write_checkpoint",
    "write_motion_module",
    "write_scheduler",
    "write_transformer",
]

TRANSFORMER_CONFIG: Final[Mapping[str, Any]] = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 16,
    "attention_type": "default",
    "caption_channels": 32,
    "cross_attention_dim": 32,
    "double_self_attention": False,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 2,
    "num_embeds_ada_norm": 1000,
    "num_layers": 2,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 64,
    "upcast_attention": False,
    "use_linear_projection": False,
}
"""`transformer/config.json` of `write_transformer`: the keys of PixArt's release, which knows nothing of motion."""

SCHEDULER_CONFIG: Final[Mapping[str, Any]] = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "dynamic_thresholding_ratio": 0.995,
    "lambda_min_clipped": -5.1,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "solver_order": 2,
    "solver_type": "midpoint",
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "linspace",
    "trained_betas": None,
    "use_karras_sigmas": False,
    "variance_type": "learned_range",
}
"""`scheduler/scheduler_config.json` of V1 to V3: noise is predicted, and its variance, which no sampler here uses."""

_MOTION: Final = ".attn_temporal."


def write_checkpoint(
    folder: str | Path,
    *,
    vae: str = "v1",
    sample_size: int = 64,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a complete image model with random weights; with `write_motion_module` beside it, it makes videos.

    Args:
        folder: gets `transformer/`, `vae/`, `scheduler/`, `text_encoder/` and `tokenizer/`.
        vae: generation of its VAE: V1's for pictures; with V2's it is what its makers' image pipeline took.
        sample_size: latent pixels a side that it was made for; with 128 it is told the picture's size and ratio.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    folder = Path(folder)
    write_transformer(folder / "transformer", sample_size=sample_size, seed=seed, dtype=dtype)
    write_vae(folder / "vae", vae, seed=seed, dtype=dtype)
    write_t5(folder / "text_encoder", folder / "tokenizer", seed=seed, dtype=dtype)
    write_scheduler(folder / "scheduler")
    return folder


def write_scheduler(folder: str | Path) -> Path:
    """Write the `scheduler/` folder.

    Returns:
        The folder.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "scheduler_config.json", SCHEDULER_CONFIG)
    return place


def write_transformer(
    folder: str | Path, *, sample_size: int = 64, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write the `transformer/` folder of an image model with random weights.

    Args:
        folder: becomes the component's folder.
        sample_size: as of `write_checkpoint`.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    # What it is told fills thirds of the time embedding.
    thirds = {"num_attention_heads": 6, "cross_attention_dim": 96} if sample_size == 128 else {}
    config = {**TRANSFORMER_CONFIG, **thirds, "sample_size": sample_size}
    weights = {name: tensor for name, tensor in _weights(config, seed).items() if _MOTION not in name}
    return save_component(Path(folder), {"_class_name": "Transformer2DModel", **config}, cast(weights, dtype))


def write_motion_module(path: str | Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write the motion module for the image model of `write_transformer`, one safetensors file.

    Returns:
        The file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    moving = {name: tensor for name, tensor in _weights(TRANSFORMER_CONFIG, seed).items() if _MOTION in name}
    write_tensors(path, cast(moving, dtype))
    return path


def _weights(config: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    with seeded(seed):
        return stirred(PixArt(**config))
