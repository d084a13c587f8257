"""What a recipe may say: one strict document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from easyanimate_core.data import Inlet
from easyanimate_core.interfaces import AttentionBackend
from easyanimate_core.schema import Among, Choice, Model
from easyanimate_core.slots import ATTENTION
from easyanimate_train.interfaces import Given, Learnable, Objective, TrainDataset
from easyanimate_train.slots import DATASETS, GIVENS, LEARNABLES, OBJECTIVES

__all__ = ["CacheConfig", "CheckpointConfig", "EmaConfig", "ModelConfig", "OptimConfig", "TrainConfig"]


class ModelConfig(Model):
    """Where the model comes from."""

    weights: Path
    """Folder in the released layout."""

    fresh: tuple[Literal["denoiser", "vae", "text"], ...] = ()
    """Roles that start from random weights; their folders need only a config.json."""

    inlets: tuple[Inlet, ...] = ()
    """What the denoiser's input channels after the latents mean, in order. Where the weights have fewer, new ones
    start at zero, which changes nothing; where they have more, those are dropped."""

    denoiser: Mapping[str, Any] = Field(default_factory=dict)
    """Settings that replace those of the denoiser's config.json."""


class OptimConfig(Model):
    """How parameters move."""

    name: Literal["adamw", "muon"] = "adamw"
    """`muon` moves matrices and convolutions by Muon, everything else (and `muon_exclude`) by AdamW."""

    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Peak rate of AdamW."""

    muon_learning_rate: float = Field(default=0.02, gt=0, le=1)
    """Peak rate of Muon."""

    muon_exclude: tuple[str, ...] = ()
    """Regular expressions searched in parameter names; a match is moved by AdamW."""

    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of AdamW's moments."""

    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled weight decay, for both."""

    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "cosine"
    """Course of the rate over the run."""

    warmup: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""

    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this L2 norm."""

    accumulate: int = Field(default=1, ge=1, le=4096)
    """Micro-steps per step."""


class EmaConfig(Model):
    """A slowly moving average of the weights, which is what a run writes in the end."""

    decay: float = Field(default=0.9999, ge=0, lt=1)
    """Share of the old average that stays at each step."""

    warmup: bool = True
    """Use `(1 + n) / (10 + n)` while that is smaller."""


class CheckpointConfig(Model):
    """When the run's state is written."""

    every: int = Field(default=500, ge=1)
    """Steps between checkpoints; the last step always writes one."""

    keep: int = Field(default=2, ge=1)
    """Newest checkpoints that stay."""


class CacheConfig(Model):
    """Latents computed once and kept on disk, under a key of everything that they depend on."""

    clips: int = Field(ge=1)
    """How many clips; clip `i` is item `i mod n` of the dataset's `n`."""

    folder: Path | None = None
    """Where the files lie; runs that share it share latents. Default: `cache/` in the output folder."""

    key_frames: bool = False
    """Encode each latent frame from its newest frame alone, which is several times faster. Only for a VAE whose
    time was folded (see the objective `vae`); the first clips are checked against the full encoder."""


class TrainConfig(Model):
    """A training run. The same document with the same seed gives the same weights on one machine."""

    output: Path
    """Folder of the run: checkpoints, metrics and, in the end, `final/` in the released layout."""

    model: ModelConfig
    """What is trained."""

    objective: Annotated[Choice[Objective], Among(OBJECTIVES)]
    """What is minimised."""

    learnable: Annotated[Choice[Learnable], Among(LEARNABLES)] = Field(default="full", validate_default=True)
    """What changes."""

    dataset: Annotated[Choice[TrainDataset], Among(DATASETS)]
    """What is seen."""

    givens: tuple[Annotated[Choice[Given], Among(GIVENS)], ...] = ()
    """What a clip is given besides its caption; each feeds inlets of its own."""

    steps: int = Field(ge=1)
    """Optimiser steps."""

    batch_size: int = Field(default=1, ge=1)
    """Samples per process and micro-step."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Every draw of the run follows from it."""

    cache: CacheConfig | None = None
    """Compute latents once; each batch is encoded anew when left out."""

    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Type of matrix products; weights stay float32."""

    attention: Annotated[Choice[AttentionBackend], Among(ATTENTION)] = Field(default="sdpa", validate_default=True)
    """How the denoiser computes attention."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""

    optim: OptimConfig = OptimConfig()
    """How parameters move."""

    ema: EmaConfig | None = None
    """Average of the weights; off when left out."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    """When state is written."""

    log_every: int = Field(default=10, ge=1)
    """Steps between lines of `metrics.jsonl`."""

    tensorboard: bool = False
    """Also write TensorBoard events (needs the extra `easyanimate-train[tensorboard]`)."""
