"""Options of objectives. Pydantic only; no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from easyanimate_core.schema import Model

__all__ = ["DenoiseOptions", "VaeOptions"]


class DenoiseOptions(Model):
    """Flow matching: predict `noise − clean` at a random level of noise."""

    weighting: Literal["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"] = "logit_normal"
    """Density of levels (`logit_normal`, `mode`, else uniform) and weight of the error (`sigma_sqrt` σ⁻²,
    `cosmap`, else 1)."""

    logit_mean: float = 0.0
    """Mean of the logit-normal density along the level table, which runs from noise to data: below 0 prefers
    noisy levels."""

    logit_std: float = Field(default=1.0, gt=0)
    """Width of the logit-normal density."""

    mode_scale: float = 1.29
    """Scale of the `mode` density."""

    shift: float = Field(default=1.0, gt=0)
    """Shift of the level table towards noise; 1 leaves it linear, as V5.1 was trained."""

    text_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of captions replaced by an empty one, for guidance."""

    motion_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the loss on differences between latent frames (needs more than two of them)."""

    outlier: float = Field(default=50.0, gt=0)
    """Errors larger than this count as zero."""


class VaeOptions(Model):
    """Reconstruct pixels from latents."""

    l2: float = Field(default=1.0, ge=0)
    """Weight of the mean squared error beside the mean absolute error."""

    kl: float = Field(default=1e-4, ge=0)
    """Weight of the mean divergence of the posterior from a unit normal, per latent value."""

    sample: bool = True
    """Decode a sample of the posterior instead of its mode."""

    latent_noise: float = Field(default=0.0, ge=0)
    """Largest extra noise on latents, as a share of their spread; drawn uniformly per clip. Makes a decoder
    forgive what a denoiser gets slightly wrong."""

    fold_time: bool = False
    """After the last step, move every convolution's weight along time into the newest tap, which changes nothing
    for pictures. A model trained on pictures then codes each latent frame from its own newest frame, and video
    training can build on that; left as it is, it would look at the oldest frame."""

    scale: bool = True
    """After the last step, set the scaling factor so that latents have unit spread."""
