"""A tiny pipeline in memory: real components with random weights, a request that they run quickly, and its states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from easyanimate_core.data import Geometry, Inlet, State
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.events import CancelToken, EventBus
from easyanimate_core.images.clip import ClipImageEncoder
from easyanimate_core.interfaces import Toolbox
from easyanimate_core.offload.resident import Resident
from easyanimate_core.pipeline import default_plan
from easyanimate_core.pipeline.plan import Plan
from easyanimate_core.pipeline.walk import run
from easyanimate_core.plugins import active
from easyanimate_core.presets import find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.slots import SAMPLERS
from easyanimate_core.testing.tiny import TEXT_ENCODER_CONFIG, TRANSFORMER_CONFIG, VAE_CONFIG, make_tokenizer
from easyanimate_core.testing.tiny.folders import seeded
from easyanimate_core.testing.tiny.texts import CLIP_CONFIG
from easyanimate_core.text.qwen2_vl import Qwen2VLTextEncoder
from easyanimate_core.vae.magvit import Magvit

__all__ = ["tiny_request", "tiny_state", "tiny_toolbox", "walked"]


def tiny_toolbox(inlets: Sequence[Inlet] = (), *, seed: int = 0) -> Toolbox:
    """The components of a model of V5.1's classes with random weights, on the CPU in float32.

    Args:
        inlets: what the denoiser takes besides text, in order; `image_tokens` brings an image encoder of width 20.
        seed: same seed, same weights.
    """
    extra = sum(inlet.width for inlet in inlets if inlet.kind == "channels")
    tokenizer = make_tokenizer(max_length=48)
    text_config = {**TEXT_ENCODER_CONFIG, "vocab_size": len(tokenizer)}
    with seeded(seed):
        denoiser = MMDiT(**{**TRANSFORMER_CONFIG, "in_channels": TRANSFORMER_CONFIG["in_channels"] + extra})
        vae = Magvit(**VAE_CONFIG)
        text = Qwen2VLTextEncoder(text_config, tokenizer)
        image = ClipImageEncoder(CLIP_CONFIG) if any(inlet.name == "image_tokens" for inlet in inlets) else None
    denoiser.declare(inlets)
    return Toolbox(
        text_encoders=(text.eval(),),
        image_encoder=image,
        denoiser=denoiser.eval(),
        vae=vae.eval(),
        sampler=active().registries[SAMPLERS].create("flow"),
        offload=Resident(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        events=EventBus(),
        cancel=CancelToken(),
        negative_prompt="blurred",
    )


def tiny_request(**settings: Any) -> GenerationRequest:
    """A complete request that tiny models run in a moment: 5 frames of 32 × 48 pixels in 2 steps, seed 7.

    Args:
        settings: fields of `GenerationRequest` in place of these.

    Raises:
        InvalidRequest: a setting does not fit.
    """
    said = {"prompt": "a red circle moving right", "size": (32, 48), "frames": 5, "steps": 2, "seed": 7, **settings}
    # Which inlets a condition needs is for the contract of conditioners to say, not for a preset.
    return find_preset("nano").complete(GenerationRequest.model_validate(said))


def tiny_state(request: GenerationRequest) -> State:
    """The state that a run of a complete request begins with."""
    assert request.size is not None
    assert request.frames is not None
    return State(request, Geometry(request.size.height, request.size.width, request.frames, request.batch))


def walked(request: GenerationRequest, toolbox: Toolbox, *, until: str = "decode") -> State:
    """The state of a complete request after a stage of the default plan.

    Args:
        request: its `scale` and `match_colours` add stages.
        toolbox: its offload strategy must have been attached, if it needs that.
        until: name of the last stage.
    """
    plan: Plan = default_plan(request)
    names = plan.names[: plan.names.index(until) + 1]
    return run(Plan(stage for stage in plan if stage.name in names), tiny_state(request), toolbox)
