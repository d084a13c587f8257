"""A tiny V3: its transformer has attention over time and, in every other block, over the whole video; image tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from easyanimate_core.checkpoints.save import save_component
from easyanimate_core.denoisers.pixart import PixArt
from easyanimate_core.testing.tiny import v1
from easyanimate_core.testing.tiny.folders import cast, seeded, stirred
from easyanimate_core.testing.tiny.texts import write_clip, write_t5
from easyanimate_core.testing.tiny.vaes import write_vae

__all__ = ["TRANSFORMER_CONFIG", "write_checkpoint", "write_transformer"]

_EVEN: Final[Mapping[str, Any]] = {
    "num_attention_heads": 16,
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_position_encoding_max_len": 4096,
    "temporal_attention_dim_div": 1,
    "block_size": 1,
    "remove_time_embedding_in_photo": False,
}

TRANSFORMER_CONFIG: Final[Mapping[str, Any]] = {
    **v1.TRANSFORMER_CONFIG,
    "basic_block_type": "global_motionmodule",
    "motion_module_type": "Vanilla",
    "motion_module_kwargs_even": _EVEN,
    "motion_module_kwargs_odd": {**_EVEN, "attention_block_types": ["Temporal_Self", "Global_Self"]},
    "enable_uvit": True,
    "qk_norm": False,
    "after_norm": False,
    # What averaging weights left in the released file.
    "decay": 0.9999,
    "optimization_step": 1000,
}
"""`transformer/config.json` of `write_transformer` for text to video."""


def write_checkpoint(
    folder: str | Path, *, inlets: bool = True, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a complete checkpoint with random weights.

    Args:
        folder: gets `transformer/`, `vae/`, `scheduler/`, `text_encoder/`, `tokenizer/` and, with inlets,
            `image_encoder/`.
        inlets: for image to video, as released; for text to video otherwise.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    folder = Path(folder)
    write_transformer(folder / "transformer", inlets=inlets, seed=seed, dtype=dtype)
    write_vae(folder / "vae", "v3", seed=seed, dtype=dtype)
    write_t5(folder / "text_encoder", folder / "tokenizer", seed=seed, dtype=dtype)
    v1.write_scheduler(folder / "scheduler")
    if inlets:
        write_clip(folder / "image_encoder", projection=768, seed=seed, dtype=dtype)
    return folder


def write_transformer(
    folder: str | Path, *, inlets: bool = True, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write the `transformer/` folder of a model with random weights.

    Args:
        folder: becomes the component's folder.
        inlets: an image-to-video model, with the inlets `mask` (4 channels), `masked_video` (4 channels) and
            `image_tokens` (768); one for text to video otherwise.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    config = {**TRANSFORMER_CONFIG, "in_channels": 12 if inlets else 4}
    built = {key: value for key, value in config.items() if key not in ("decay", "optimization_step")}
    with seeded(seed):
        weights = stirred(PixArt(**built))
    return save_component(Path(folder), {"_class_name": "Transformer3DModel", **config}, cast(weights, dtype))
