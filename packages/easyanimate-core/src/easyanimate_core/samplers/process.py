"""How data becomes noise: the part of a sampler that training shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FlowMatching", "VariancePreserving"]

_Weighting = Literal["none", "sigma_sqrt", "cosmap"]
_BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
_Prediction = Literal["epsilon", "v_prediction"]


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


class VariancePreserving:
    """Discrete diffusion: `x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·noise`, at `levels` levels of noise.

    Levels are timesteps t in 0 (least noise) … `levels` − 1, rounded to whole numbers. Ho et al., "Denoising Diffusion
    Probabilistic Models" (2020), equation 4. ᾱ is the product of `1 − β`; with zero terminal signal-to-noise ratio,
    √ᾱ is moved and stretched so that the last level is noise alone: Lin et al., "Common Diffusion Noise Schedules and
    Sample Steps are Flawed" (2023), algorithm 1.

    Args:
        levels: how many there are.
        beta_start: variance that the first level adds.
        beta_end: variance that the last level adds; both are unused with the cosine.
        beta_schedule: `linear`, `scaled_linear` (linear in √β), or `squaredcos_cap_v2`: Nichol and Dhariwal, "Improved
            DDPM" (2021), equation 17.
        prediction: what the denoiser predicts: `epsilon` is the noise, `v_prediction` is `√ᾱ·noise − √(1 − ᾱ)·x₀` of
            Salimans and Ho, "Progressive Distillation" (2022), appendix D.
        zero_terminal_snr: leave nothing of the data in the last level.
    """

    def __init__(
        self,
        levels: int = 1000,
        *,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: _BetaSchedule = "linear",
        prediction: _Prediction = "epsilon",
        zero_terminal_snr: bool = False,
    ) -> None:
        self.prediction = prediction
        betas = _betas(levels, beta_start, beta_end, beta_schedule)
        kept = torch.cumprod(1 - betas, dim=0)
        if zero_terminal_snr:
            root = kept.sqrt()
            kept = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        self.kept: Tensor = kept
        """ᾱ, `(levels,)` float32: share of the data's variance that is left."""

    def add_noise(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Noised data `(B, …)` at levels t `(B,)`, in the dtype of `clean`."""
        signal, scatter = self._shares(level, clean)
        return signal * clean + scatter * noise

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The noise, or the velocity there."""
        if self.prediction == "epsilon":
            return noise
        signal, scatter = self._shares(level, clean)
        return signal * noise - scatter * clean

    def weight(self, level: Tensor) -> Tensor:
        """Weight `(B,)` of the squared error at levels t `(B,)`: 1 everywhere."""
        return torch.ones(level.shape, device=level.device)

    def _shares(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ) at levels `(B,)`, each `(B, 1, 1, …)`."""
        kept = self.kept.to(level.device)[level.round().long()]
        return _per_sample(kept.sqrt(), like), _per_sample((1 - kept).sqrt(), like)


def _betas(levels: int, start: float, end: float, schedule: _BetaSchedule) -> Tensor:
    """Variances `(levels,)` float32 that the levels add."""
    match schedule:
        case "linear":
            return torch.linspace(start, end, levels)
        case "scaled_linear":
            return torch.linspace(start**0.5, end**0.5, levels) ** 2
        case "squaredcos_cap_v2":
            wave = [math.cos((i / levels + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(levels + 1)]
            return torch.tensor([min(1 - wave[i + 1] / wave[i], 0.999) for i in range(levels)])


def _per_sample(level: Tensor, like: Tensor) -> Tensor:
    """`(B,)` as `(B, 1, 1, …)` on the device and in the dtype of `like`."""
    return level.to(like).reshape(-1, *[1] * (like.ndim - 1))
