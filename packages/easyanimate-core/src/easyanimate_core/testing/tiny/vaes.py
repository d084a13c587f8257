"""Tiny VAEs of every generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from easyanimate_core.checkpoints.save import save_component
from easyanimate_core.testing.tiny.folders import cast, seeded
from easyanimate_core.testing.tiny.v5_1 import VAE_CONFIG
from easyanimate_core.vae.kl2d import KL2d
from easyanimate_core.vae.magvit import Magvit

__all__ = ["COGVIDEOX_CONFIG", "KL2D_CONFIG", "VAE_CONFIGS", "write_vae"]

KL2D_CONFIG: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "block_out_channels": [4, 4, 8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "scaling_factor": 0.18215,
    }
)
"""Diffusers' picture VAE, as in V1."""

COGVIDEOX_CONFIG: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "block_out_channels": [4, 8, 8, 8],
        "latent_channels": 16,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "scaling_factor": 0.7,
    }
)
"""CogVideoX's; no generation was released with it."""


def _magvit(scheme: str, encoder_run: int, decoder_run: int) -> Mapping[str, Any]:
    """The VAE of V2, V3 or V4: attention over the whole clip in the middle, norms over all frames of a run."""
    return MappingProxyType(
        {
            "block_out_channels": [4, 4, 8, 8],
            "down_block_types": VAE_CONFIG["down_block_types"],
            "up_block_types": VAE_CONFIG["up_block_types"],
            "latent_channels": 4,
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "mid_block_attention_type": "3d",
            "slice_mag_vae": False,
            scheme: True,
            "mini_batch_encoder": encoder_run,
            "mini_batch_decoder": decoder_run,
            "scaling_factor": 0.18215,
        }
    )


VAE_CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "v1": KL2D_CONFIG,
        "v2": _magvit("slice_mag_vae", 9, 3),
        "v3": _magvit("slice_compression_vae", 8, 2),
        "v4": _magvit("cache_compression_vae", 8, 2),
        "v5": VAE_CONFIG,
        "v5.1": VAE_CONFIG,
    }
)
"""`vae/config.json` of each generation: the real classes' settings, small."""


def write_vae(folder: str | Path, generation: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write a generation's VAE with random weights, in the released layout.

    Args:
        folder: the checkpoint's `vae/`; made if it is not there.
        generation: a key of `VAE_CONFIGS`.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    folder, config = Path(folder), dict(VAE_CONFIGS[generation])
    kind: Callable[..., Any] = KL2d if generation == "v1" else Magvit
    with seeded(seed):
        weights = kind(**config).state_dict()
    name = "AutoencoderKL" if generation == "v1" else "AutoencoderKLMagvit"
    save_component(folder, {"_class_name": name, **config}, cast(weights, dtype))
    return folder
