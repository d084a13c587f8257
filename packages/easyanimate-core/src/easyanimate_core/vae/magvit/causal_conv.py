"""Convolutions over time and space, and the layers that halve and double both."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from easyanimate_core.vae.magvit.passes import TimePass

__all__ = ["CausalConv3d", "Downsampler", "Upsampler"]


class CausalConv3d(nn.Conv3d):
    """3×3×3 convolution; space is padded with zeros by `spatial_padding`, time as the pass says."""

    def __init__(
        self, channels: int, out_channels: int, *, stride: tuple[int, int, int] = (1, 1, 1), spatial_padding: int = 1
    ) -> None:
        super().__init__(channels, out_channels, 3, stride=stride, padding=(0, spatial_padding, spatial_padding))

    def over(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T / stride, H', W')`, as part of a pass."""
        return time.convolve(self, x)


class Downsampler(nn.Module):
    """Halves height and width, and time if asked; pads only right and bottom."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=(2 if temporal else 1, 2, 2), spatial_padding=0)

    def forward(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to half the size."""
        return self.conv.over(F.pad(x, (0, 1, 0, 1)), time)


class Upsampler(nn.Module):
    """Doubles height and width, and time if asked, after the convolution.

    Args:
        channels: in and out.
        temporal: whether time is doubled.
        smooth: new frames lie between their neighbours; otherwise frames are repeated.
    """

    def __init__(self, channels: int, *, temporal: bool, smooth: bool) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels)
        self.temporal = temporal
        self.smooth = smooth

    def forward(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to double the size; the pass says which frames are doubled."""
        x = F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest")
        x = self.conv.over(x, time)
        return time.stretch(self, x, self._double) if self.temporal else x

    def _double(self, x: Tensor) -> Tensor:
        between = partial(F.interpolate, scale_factor=(2, 1, 1), mode="trilinear", align_corners=False)
        return between(x) if self.smooth else x.repeat_interleave(2, dim=2)
