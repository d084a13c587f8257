"""Random draws of a run, in the order in which released models make them: first the latents, then all else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["draw_level", "draw_noise"]


def draw_noise(state: State, toolbox: Toolbox) -> tuple[Tensor, tuple[Generator, ...]]:
    """The noise that a run starts from, and each sample's generator as this draw leaves it.

    Drawn on the CPU, so that a seed means the same on every device. Every sample has its own seed: it equals the
    same sample made alone. Whoever needs further random numbers asks here for generators of its own: the draw is
    repeated, so the order of stages does not matter.

    Returns:
        `(B, C, f, h, w)` in the loop's dtype on the CPU, and `B` generators.
    """
    _, *shape = toolbox.vae.compression.latent_shape(state.geometry)
    generators = tuple(torch.Generator("cpu").manual_seed(seed) for seed in state.request.sample_seeds())
    samples = [torch.randn(shape, generator=generator, dtype=toolbox.dtype) for generator in generators]
    return torch.stack(samples), generators


def draw_level(batch: int, generator: Generator) -> Tensor:
    """Deviations `(B,)` of the noise on known pixels as in training: `exp(N(−3, ½))` per sample, about 0.05."""
    return torch.normal(-3.0, 0.5, (batch,), generator=generator).exp()
