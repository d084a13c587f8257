"""Everything that is registered keeps its contract. Components are found in the registries: a new one is tested
without a line here, unless its contract has to be told something, which it then says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from easyanimate_core.checkpoints.diffusers import to_diffusers
from easyanimate_core.data import Inlet
from easyanimate_core.denoisers.hunyuan import Hunyuan
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.denoisers.pixart import PixArt
from easyanimate_core.interfaces import Toolbox
from easyanimate_core.testing import contracts_of, tiny_toolbox
from easyanimate_core.testing.tiny import TEXT_ENCODER_CONFIG, TRANSFORMER_CONFIG, VAE_CONFIG, texts, v1, v2, v3, v4
from easyanimate_core.testing.tiny.vaes import COGVIDEOX_CONFIG, KL2D_CONFIG, VAE_CONFIGS

CLIP = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)

INPAINTING = (Inlet("mask", "channels", 1), Inlet("masked_video", "channels", 16))
FOUR = (Inlet("mask", "channels", 4), Inlet("masked_video", "channels", 4))

PICTURED = (*FOUR, Inlet("image_tokens", "tokens", texts.CLIP_CONFIG["hidden_size"]))

V3 = {key: value for key, value in v3.TRANSFORMER_CONFIG.items() if key not in ("decay", "optimization_step")}


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def tokenizer(write: Callable[..., int], config: dict[str, Any]) -> dict[str, Any]:
    """A case of a text encoder whose factory takes a folder."""
    folder = Path(tempfile.mkdtemp()) / "tokenizer"
    return {"config": {**config, "vocab_size": write(folder)}, "tokenizer": lambda self: folder}


with torch.device("meta"):
    MMDIT = shapes(MMDiT(**TRANSFORMER_CONFIG))
    PIXART = shapes(PixArt(**v1.TRANSFORMER_CONFIG))

MOTION = {name: shape for name, shape in PIXART.items() if ".attn_temporal." in name}


@cache
def seeing_pictures() -> Toolbox:
    """A toolbox whose denoiser attends to a picture: V4's."""
    denoiser = Hunyuan(**{**v4.TRANSFORMER_CONFIG, "in_channels": 12})
    denoiser.declare(PICTURED)
    return replace(tiny_toolbox(PICTURED[-1:]), denoiser=denoiser.eval())


CASES: dict[str, list[dict[str, Any]]] = {
    "text_encoders/qwen2-vl": [{"config": TEXT_ENCODER_CONFIG}],
    "text_encoders/t5": [tokenizer(texts.write_t5_tokenizer, {**texts.T5_CONFIG, "model_type": "t5"})],
    "text_encoders/bert": [tokenizer(texts.write_bert_tokenizer, dict(texts.BERT_CONFIG))],
    "image_encoders/clip": [
        {"config": texts.CLIP_CONFIG},
        {"config": texts.CLIP_CONFIG, "processor": {"size": {"shortest_edge": 16}, "crop_size": {"height": 12}}},
    ],
    "denoisers/mmdit": [
        {"config": TRANSFORMER_CONFIG},
        {"config": {**TRANSFORMER_CONFIG, "in_channels": 33}, "inlets": INPAINTING},
    ],
    "denoisers/pixart": [
        {"config": v2.TRANSFORMER_CONFIG, "latents": (4, 2, 4, 6)},
        {"config": {**V3, "in_channels": 12}, "inlets": FOUR, "latents": (4, 2, 4, 6)},
    ],
    "denoisers/hunyuan": [
        {"config": v4.TRANSFORMER_CONFIG, "text": ((16, 24), (24, 32)), "latents": (4, 2, 4, 6)},
    ],
    "vaes/magvit": [{"config": VAE_CONFIG}, *({"config": VAE_CONFIGS[name]} for name in ("v2", "v3", "v4"))],
    "vaes/kl2d": [{"config": KL2D_CONFIG}],
    "vaes/cogvideox": [{"config": COGVIDEOX_CONFIG}],
    "conditioners/frames": [
        {"options": {"start": CLIP[0]}},
        {"options": {"video": CLIP, "mask": CLIP[..., 0]}},
    ],
    "conditioners/source-video": [{"options": {"video": CLIP, "strength": 0.6}}],
    # Unit normal data do not fit into −1…1, to which a checkpoint may ask it to clip.
    "samplers/ddim": [{"options": {"clip_sample": False}}],
    # One byte for a weight: three or seven bits of it count.
    "storage/float8": [{"tolerance": 0.1}],
    "storage/int8": [{"tolerance": 0.05}],
    "step_caches/teacache": [{"options": {"threshold": 0.3, "coefficients": [1.0, 0.0]}}],
    "step_caches/first-block": [{"options": {"threshold": 0.5}}],
    "step_caches/easycache": [{"options": {"threshold": 0.5, "warmup": 2}}],
    "conditioners/clip-image": [
        {"options": {"image": CLIP[0]}, "inlets": PICTURED, "toolbox": lambda self: seeing_pictures()},
    ],
    "conditioners/control-video": [{"options": {"video": CLIP}}],
    "conditioners/reference": [{"options": {"image": CLIP[0]}}],
    "conditioners/camera": [{"options": {"move": "pan-left + zoom-in"}}],
    "conditioners/trajectory": [{"options": {"points": [[[8, 20], [24, 24]]], "size": "32x32"}}],
    "formats/easyanimate": [{"tensors": MMDIT, "module": MMDIT}],
    "formats/diffusers": [{"tensors": to_diffusers(MMDIT).prove(MMDIT), "module": MMDIT}],
    "formats/motion-module": [{"tensors": MOTION}],
    "formats/training": [
        {"tensors": {f"denoiser.{name}": shape for name, shape in MMDIT.items()}, "module": MMDIT},
    ],
}

PACKAGES = ("easyanimate-core", "easyanimate-control", "easyanimate-train", "easyanimate-ui")

globals().update(contracts_of(*PACKAGES, cases=CASES))
