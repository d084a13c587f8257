"""A tiny V2: its transformer has motion modules over time at each place, and long skips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from easyanimate_core.checkpoints.save import save_component
from easyanimate_core.denoisers.pixart import PixArt
from easyanimate_core.testing.tiny import v1
from easyanimate_core.testing.tiny.folders import cast, seeded, stirred
from easyanimate_core.testing.tiny.texts import write_t5
from easyanimate_core.testing.tiny.vaes import write_vae

__all__ = ["TRANSFORMER_CONFIG", "write_checkpoint", "write_transformer"]

TRANSFORMER_CONFIG: Final[Mapping[str, Any]] = {
    **v1.TRANSFORMER_CONFIG,
    # Long skips end in the blocks from index 15 on.
    "num_layers": 16,
    "basic_block_type": "motionmodule",
    "motion_module_type": "Vanilla",
    "motion_module_kwargs": {
        "num_attention_heads": 8,
        "num_transformer_block": 1,
        "attention_block_types": ["Temporal_Self", "Temporal_Self"],
        "temporal_position_encoding": True,
        "temporal_position_encoding_max_len": 4096,
        "temporal_attention_dim_div": 1,
        "block_size": 1,
    },
    "enable_uvit": True,
    "patch_3d": False,
    "fake_3d": False,
    "time_position_encoding_before_transformer": False,
}
"""`transformer/config.json` of `write_transformer`."""


def write_checkpoint(folder: str | Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write a complete text-to-video checkpoint with random weights.

    Args:
        folder: gets `transformer/`, `vae/`, `scheduler/`, `text_encoder/` and `tokenizer/`.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    folder = Path(folder)
    write_transformer(folder / "transformer", seed=seed, dtype=dtype)
    write_vae(folder / "vae", "v2", seed=seed, dtype=dtype)
    write_t5(folder / "text_encoder", folder / "tokenizer", seed=seed, dtype=dtype)
    v1.write_scheduler(folder / "scheduler")
    return folder


def write_transformer(folder: str | Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write the `transformer/` folder of a text-to-video model with random weights.

    Args:
        folder: becomes the component's folder.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    with seeded(seed):
        weights = stirred(PixArt(**TRANSFORMER_CONFIG))
    return save_component(
        Path(folder), {"_class_name": "Transformer3DModel", **TRANSFORMER_CONFIG}, cast(weights, dtype)
    )
