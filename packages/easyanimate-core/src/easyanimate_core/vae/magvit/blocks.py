"""Residual blocks, attention and the down, mid and up stages."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from easyanimate_core.vae.magvit.causal_conv import CausalConv3d, Downsampler, TimeStream, Upsampler

__all__ = ["DownBlock", "FrameGroupNorm", "MidBlock", "UpBlock"]


class FrameGroupNorm(nn.GroupNorm):
    """Group norm with statistics of each frame alone, so results do not depend on how time is cut."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same shape."""
        b, c, t, h, w = x.shape
        frames = super().forward(x.transpose(1, 2).reshape(b * t, c, h, w))
        return frames.view(b, t, c, h, w).transpose(1, 2)


class _ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = FrameGroupNorm(groups, channels)
        self.conv1 = CausalConv3d(channels, out_channels)
        self.norm2 = FrameGroupNorm(groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.shortcut = nn.Conv3d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, stream: TimeStream) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T, H, W)`."""
        y = self.conv1.causal(F.silu(self.norm1(x)), stream)
        y = self.conv2.causal(F.silu(self.norm2(y)), stream)
        out: Tensor = y + self.shortcut(x)
        return out


class _SpatialAttention(nn.Module):
    """Self-attention of the pixels of each frame."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same shape, input added."""
        b, c, t, h, w = x.shape
        pixels = self.group_norm(x.transpose(1, 2).reshape(b * t, c, h * w)).transpose(1, 2)
        q, k, v = (
            linear(pixels).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = x + self.to_out(mixed).transpose(1, 2).reshape(b, t, c, h, w).transpose(1, 2)
        return out


class DownBlock(nn.Module):
    """Residual blocks, then a downsampler unless it is the last stage."""

    def __init__(
        self, channels: int, out_channels: int, *, layers: int, groups: int, downsample: bool, temporal: bool
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            _ResBlock(channels if i == 0 else out_channels, out_channels, groups) for i in range(layers)
        )
        self.downsampler = Downsampler(out_channels, temporal=temporal) if downsample else None

    def forward(self, x: Tensor, stream: TimeStream) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T', H', W')`."""
        for block in self.convs:
            x = block(x, stream)
        return x if self.downsampler is None else self.downsampler(x, stream)


class MidBlock(nn.Module):
    """Residual blocks, attention between them if the checkpoint has it."""

    def __init__(self, channels: int, *, layers: int, groups: int, attention_heads: int | None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_ResBlock(channels, channels, groups) for _ in range(layers))
        self.attentions = nn.ModuleList()
        if attention_heads:
            self.attentions.extend(_SpatialAttention(channels, attention_heads, groups) for _ in range(layers - 1))

    def forward(self, x: Tensor, stream: TimeStream) -> Tensor:
        """`(B, C, T, H, W)` to the same shape."""
        x = self.convs[0](x, stream)
        for i, block in enumerate(self.convs[1:]):
            if self.attentions:
                x = self.attentions[i](x)
            x = block(x, stream)
        return x


class UpBlock(nn.Module):
    """Residual blocks, then an upsampler unless it is the last stage."""

    def __init__(
        self, channels: int, out_channels: int, *, layers: int, groups: int, upsample: bool, temporal: bool
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            _ResBlock(channels if i == 0 else out_channels, out_channels, groups) for i in range(layers)
        )
        self.upsampler = Upsampler(out_channels, temporal=temporal) if upsample else None

    def forward(self, x: Tensor, stream: TimeStream) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T', H', W')`."""
        for block in self.convs:
            x = block(x, stream)
        return x if self.upsampler is None else self.upsampler(x, stream)
