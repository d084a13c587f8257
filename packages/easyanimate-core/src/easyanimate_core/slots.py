"""The slots that core opens. Each constant carries the type of its components: `registries[SAMPLERS]` is a
`Registry[Sampler]`. Plugins open further ones with the hook `easyanimate_slots`.
"""

from __future__ import annotations

from typing import Any, Final

from easyanimate_core.interfaces import (
    AttentionBackend,
    Conditioner,
    Denoiser,
    Format,
    ImageEncoder,
    OffloadStrategy,
    Sampler,
    Stage,
    StepCache,
    Storage,
    TextEncoder,
    VideoVAE,
)
from easyanimate_core.registry import Slot

__all__ = [
    "ATTENTION",
    "COMMANDS",
    "CONDITIONERS",
    "CORE_SLOTS",
    "DENOISERS",
    "FORMATS",
    "IMAGE_ENCODERS",
    "OFFLOAD",
    "PRESETS",
    "SAMPLERS",
    "STAGES",
    "STEP_CACHES",
    "STORAGE",
    "TEXT_ENCODERS",
    "VAES",
]

TEXT_ENCODERS: Final[Slot[TextEncoder]] = Slot("text_encoders", "turn prompts into hidden states")
"""Prompts to `TextEmbedding`; built from a checkpoint, not from options."""

IMAGE_ENCODERS: Final[Slot[ImageEncoder]] = Slot("image_encoders", "turn pictures into tokens")
"""Pictures to `ImageEmbedding`; built from a checkpoint, not from options."""

DENOISERS: Final[Slot[Denoiser]] = Slot("denoisers", "predict noise, velocity or data from noisy latents")
"""The networks of the diffusion loop; built from a checkpoint."""

VAES: Final[Slot[VideoVAE]] = Slot("vaes", "turn pixels into latents and back")
"""Video autoencoders; built from a checkpoint."""

SAMPLERS: Final[Slot[Sampler]] = Slot("samplers", "step noise towards latents")
"""Schedulers of the diffusion loop."""

CONDITIONERS: Final[Slot[Conditioner]] = Slot("conditioners", "turn pictures, videos and motions into conditions")
"""What feeds a denoiser's inlets; tagged `inlet:<name>`."""

OFFLOAD: Final[Slot[OffloadStrategy]] = Slot("offload", "decide where weights are while they are not used")
"""Placement of modules; independent of `STORAGE`."""

STORAGE: Final[Slot[Storage]] = Slot("storage", "decide the type in which weights are kept")
"""Type of stored weights; independent of `OFFLOAD`."""

ATTENTION: Final[Slot[AttentionBackend]] = Slot("attention", "compute scaled dot-product attention")
"""Attention kernels; tagged `device:<name>`."""

STEP_CACHES: Final[Slot[StepCache]] = Slot("step_caches", "skip parts of denoising steps that change little")
"""Caches in front of a denoiser, or around its trunk."""

FORMATS: Final[Slot[Format]] = Slot("formats", "recognise and map checkpoint files")
"""Checkpoint layouts; the best score among them wins."""

PRESETS: Final[Slot[Any]] = Slot("presets", "say what a released model is", data=True)
"""TOML files that describe released models."""

STAGES: Final[Slot[Stage]] = Slot("stages", "take one step of a generation plan")
"""Steps of a plan."""

COMMANDS: Final[Slot[Any]] = Slot("commands", "add a subcommand to the command line")
"""Click commands; the target is the command itself."""

CORE_SLOTS: Final[tuple[Slot[Any], ...]] = (
    TEXT_ENCODERS,
    IMAGE_ENCODERS,
    DENOISERS,
    VAES,
    SAMPLERS,
    CONDITIONERS,
    OFFLOAD,
    STORAGE,
    ATTENTION,
    STEP_CACHES,
    FORMATS,
    PRESETS,
    STAGES,
    COMMANDS,
)
"""All of the above, in the order of listings."""
