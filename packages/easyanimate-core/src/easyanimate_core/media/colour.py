"""Colour statistics: make later frames keep the colours of the first.

Source: Reinhard et al., "Color Transfer between Images" (2001): match mean and standard deviation per channel, here
in CIE L*a*b* under D65, as the released code does after decoding.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["from_lab", "match_first_frame", "to_lab"]

# sRGB primaries to XYZ, divided by the D65 white point.
_RGB_TO_XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
_KNEE = 6 / 29


def _matrix(frames: Tensor) -> Tensor:
    return torch.tensor(_RGB_TO_XYZ, dtype=frames.dtype, device=frames.device)


def to_lab(rgb: Tensor) -> Tensor:
    """From sRGB `(…, 3, H, W)` in 0…1 to L* 0…100 and a*, b* of about −110…110."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,...jhw->...ihw", _matrix(rgb), linear)
    f = torch.where(xyz > _KNEE**3, xyz.clamp(min=1e-12) ** (1 / 3), xyz / (3 * _KNEE**2) + 4 / 29)
    x, y, z = f.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def from_lab(lab: Tensor) -> Tensor:
    """L*a*b* `(…, 3, H, W)` to sRGB, clamped to 0…1."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], dim=-3)
    xyz = torch.where(f > _KNEE, f**3, 3 * _KNEE**2 * (f - 4 / 29))
    linear = torch.einsum("ij,...jhw->...ihw", torch.linalg.inv(_matrix(lab)), xyz).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-12) ** (1 / 2.4) - 0.055)


def match_first_frame(frames: Tensor) -> Tensor:
    """Give every frame the mean and spread of the first, per channel of L*a*b*; the first stays as it is.

    Args:
        frames: `(B, 3, F, H, W)` in 0…1.
    """
    lab = to_lab(frames.transpose(1, 2))
    mean, spread = lab.mean((-2, -1), keepdim=True), lab.std((-2, -1), keepdim=True).clamp(min=1e-5)
    moved = (lab - mean) / spread * spread[:, :1] + mean[:, :1]
    matched = from_lab(moved).transpose(1, 2)
    return torch.cat([frames[:, :, :1], matched[:, :, 1:]], dim=2)
