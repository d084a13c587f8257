"""Layers that several denoisers share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn

__all__ = ["LATENT_PIXELS", "AdaLayerNormZero", "RMSNorm", "Timestep", "has_picture", "sinusoid"]

LATENT_PIXELS = 8
"""Pixels per latent pixel along each side, of every released VAE. A denoiser that was trained with the size of the
picture as a condition knows it from the latents' shape."""


def has_picture(tokens: Tensor) -> Tensor:
    """`(B,)` bool: whether a sample of image tokens `(B, L, D)` has a picture; one of zeros alone has none."""
    return tokens.ne(0).flatten(1).any(dim=1)


def sinusoid(numbers: Tensor, width: int, *, cos_first: bool = True, freq_shift: float = 0) -> Tensor:
    """Sines and cosines of numbers `(n,)`, `(n, width)` float32. Ho et al., "DDPM" (2020), appendix B."""
    half = width // 2
    k = torch.arange(half, dtype=torch.float32, device=numbers.device)
    frequency = torch.exp(-torch.log(torch.tensor(10000.0)) * k / (half - freq_shift))
    angle = numbers.float()[:, None] * frequency[None]
    return torch.cat([angle.cos(), angle.sin()] if cos_first else [angle.sin(), angle.cos()], -1)


class RMSNorm(nn.Module):
    """Root-mean-square norm: statistics in float32, back to the input's dtype, then the weight."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`(…, width)` to the same shape."""
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (x.float() * scale).to(x.dtype)


class Timestep(nn.Module):
    """Sinusoidal embedding of timesteps on the 0…1000 scale, then a two-layer perceptron."""

    def __init__(self, sinusoid_dim: int, width: int, *, flip_sin_to_cos: bool = True, freq_shift: float = 0) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(sinusoid_dim, width)
        self.linear_2 = nn.Linear(width, width)
        self.sinusoid_dim = sinusoid_dim
        self.cos_first = flip_sin_to_cos
        self.freq_shift = freq_shift

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """`(B,)` to `(B, width)`; the sinusoid is computed in float32."""
        waves = sinusoid(timestep, self.sinusoid_dim, cos_first=self.cos_first, freq_shift=self.freq_shift)
        out: Tensor = self.linear_2(F.silu(self.linear_1(waves.to(dtype))))
        return out


class AdaLayerNormZero(nn.Module):
    """Shift, scale and gate of video and text from the time embedding; one norm serves both streams."""

    def __init__(self, time_dim: int, width: int, *, eps: float, affine: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(time_dim, 6 * width)
        self.norm = FP32LayerNorm(width, eps=eps, elementwise_affine=affine)

    def vectors(self, temb: Tensor) -> Tensor:
        """Shift, scale and gate of the video, then of the text, `(B, 6, D)`, from `temb (B, T)`."""
        found: Tensor = self.linear(F.silu(temb)).unflatten(-1, (6, -1))
        return found

    def forward(self, video: Tensor, text: Tensor, temb: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`video (B, S, D)`, `text (B, L, D)`, `temb (B, T)` to both modulated and both gates `(B, 1, D)`."""
        shift, scale, gate, text_shift, text_scale, text_gate = self.vectors(temb).split(1, dim=1)
        video = self.norm(video) * (1 + scale) + shift
        text = self.norm(text) * (1 + text_scale) + text_shift
        return video, text, gate, text_gate
