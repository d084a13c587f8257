"""How data becomes noise: the part of a sampler that training shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FlowMatching"]

_Weighting = Literal["none", "sigma_sqrt", "cosmap"]


class FlowMatching:
    """Straight lines from data to unit noise: `x_σ = σ·noise + (1 − σ)·x₀`, velocity `noise − x₀`.

    Levels are σ in 0 (data) … 1 (noise). Rectified flow as in Esser et al., "Scaling Rectified Flow Transformers
    for High-Resolution Image Synthesis" (2024), section 2; the weightings are those of its section 3.1.

    Args:
        weighting: of the squared error over levels: `none` is 1, `sigma_sqrt` is `σ⁻²`, `cosmap` is
            `2/(π·(1 − 2σ + 2σ²))`.
    """

    def __init__(self, weighting: _Weighting = "none") -> None:
        self.weighting = weighting

    def add_noise(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Noised data `(B, …)` at levels σ `(B,)` in 0…1, in the dtype of `clean`."""
        sigma = _per_sample(level, clean)
        return sigma * noise + (1 - sigma) * clean

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The velocity `noise − clean`, the same at every level."""
        return noise - clean

    def weight(self, level: Tensor) -> Tensor:
        """Weight `(B,)` of the squared error at levels σ `(B,)`."""
        match self.weighting:
            case "none":
                return torch.ones_like(level)
            case "sigma_sqrt":
                return level**-2
            case "cosmap":
                return 2 / (math.pi * (1 - 2 * level + 2 * level**2))


def _per_sample(level: Tensor, like: Tensor) -> Tensor:
    """`(B,)` as `(B, 1, 1, …)` on the device and in the dtype of `like`."""
    return level.to(like).reshape(-1, *[1] * (like.ndim - 1))
