"""Flow matching for text-to-video denoisers.

Source: the training of V5.1 (uniform table of 1000 levels, velocity target, outlier-robust squared error) and
Esser et al., "Scaling Rectified Flow Transformers" (2024), section 3.1, for densities and weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from easyanimate_core.data import Condition, TextEmbedding, wire
from easyanimate_core.samplers.process import FlowMatching
from easyanimate_train.objectives.options import DenoiseOptions

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_train.interfaces import Batch, Models

__all__ = ["LEVELS", "Denoise", "density", "flow_error"]

LEVELS = 1000
"""Entries of the table of noise levels; timesteps are levels times this."""


def density(options: DenoiseOptions, count: int, rng: Generator) -> Tensor:
    """Positions `(count,)` in 0…1 along the level table, 0 being the noisiest."""
    if options.weighting == "logit_normal":
        return torch.sigmoid(torch.randn(count, generator=rng) * options.logit_std + options.logit_mean)
    u = torch.rand(count, generator=rng)
    if options.weighting == "mode":
        return 1 - u - options.mode_scale * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    return u


def flow_error(prediction: Tensor, target: Tensor, weight: Tensor, options: DenoiseOptions) -> Tensor:
    """Weighted mean squared error in float32; see `DenoiseOptions` for outliers and motion.

    Args:
        prediction: `(B, C, f, h, w)`.
        target: the same shape.
        weight: `(B,)`.
        options: how errors count.
    """
    difference = prediction.float() - target.float()
    squared = torch.where(difference.abs() > options.outlier, 0.0, difference**2)
    loss = (squared * weight.reshape(-1, 1, 1, 1, 1)).mean()
    if options.motion_share and prediction.shape[2] > 2:
        change = difference[:, :, 1:] - difference[:, :, :-1]
        loss = (1 - options.motion_share) * loss + options.motion_share * (change**2).mean()
    return loss


class Denoise:
    """Predict the velocity from data to noise at a random level."""

    roles = ("denoiser", "vae", "text")

    def __init__(self, options: DenoiseOptions | None = None) -> None:
        self.options = options or DenoiseOptions()
        weighting = self.options.weighting
        self.process = FlowMatching(weighting if weighting in ("sigma_sqrt", "cosmap") else "none")
        linear = torch.linspace(1.0, 1 / LEVELS, LEVELS)
        self.table = self.options.shift * linear / (1 + (self.options.shift - 1) * linear)

    def begin(self, models: Models) -> None:
        """Nothing to prepare."""

    def finish(self, models: Models, sample: Batch) -> None:
        """Nothing to finish."""

    def levels(self, positions: Tensor) -> Tensor:
        """σ `(B,)` at positions 0…1 along the table."""
        return self.table[(positions * LEVELS).long().clamp(0, LEVELS - 1)]

    def loss(self, models: Models, batch: Batch, rng: Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of one batch; draws, in order: dropout, levels, noise."""
        if batch.latents is not None:
            clean = batch.latents
        else:
            with torch.no_grad():
                clean = models.vae.encode_video(batch.pixels, generator=rng)
        drop = torch.rand(len(batch.captions), generator=rng) < self.options.text_dropout
        captions = ["" if gone else text for gone, text in zip(drop, batch.captions, strict=True)]
        sigma = self.levels(density(self.options, clean.shape[0], rng)).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng).to(clean)
        ids, mask = (t.to(clean.device) for t in models.text.tokenize(captions))
        text = (TextEmbedding(models.text(ids, mask), mask),)
        loss = self.loss_at(models.denoiser, clean, noise, sigma, text, batch.inlets)
        return loss, {}

    def loss_at(
        self,
        denoiser: Any,
        clean: Tensor,
        noise: Tensor,
        sigma: Tensor,
        text: tuple[TextEmbedding, ...],
        inlets: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Tensor:
        """The loss with everything random given: levels σ `(B,)`, noise like the clean latents, values of inlets."""
        noisy = self.process.add_noise(clean, noise, sigma)
        wired = wire(denoiser.inlets, [Condition(name, value) for name, value in inlets.items()], noisy)
        tokens = denoiser.embed(noisy, sigma * LEVELS, text, wired)
        prediction = denoiser.head(denoiser.trunk(tokens))
        return flow_error(
            prediction, self.process.target(clean, noise, sigma), self.process.weight(sigma), self.options
        )
