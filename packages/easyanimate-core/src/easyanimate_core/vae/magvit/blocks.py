"""Residual blocks, attention and the down, mid and up stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from easyanimate_core.kernels.group_norm_silu import group_norm_silu
from easyanimate_core.vae.magvit.causal_conv import CausalConv3d, Downsampler, Upsampler
from easyanimate_core.vae.magvit.passes import TimePass, rejoin, repeated

__all__ = ["ClipGroupNorm", "DownBlock", "FrameGroupNorm", "Layout", "MidBlock", "UpBlock"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What all stages have in common.

    Attributes:
        layers: residual blocks per stage.
        groups: of every group norm.
        frame_norm: norms look at single frames; otherwise at all that go through the network together.
        attention: in the middle, within each `"frame"` or over the whole `"video"`; `None` without.
        heads: of the attention.
    """

    layers: int
    groups: int
    frame_norm: bool
    attention: str | None
    heads: int = 1

    def norm(self, channels: int) -> nn.GroupNorm:
        """The entrance of a convolution with this many channels."""
        kind = FrameGroupNorm if self.frame_norm else ClipGroupNorm
        return kind(self.groups, channels, eps=1e-6)


class ClipGroupNorm(nn.GroupNorm):
    """Group norm with statistics of all frames that go through the network together, then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same shape."""
        return F.silu(super().forward(x))


class FrameGroupNorm(nn.GroupNorm):
    """Group norm with statistics of each frame alone, so results do not depend on how time is cut; then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same shape."""
        return group_norm_silu(x, self.weight, self.bias, self.num_groups, self.eps)


class _ResBlock(nn.Module):
    """Norm with SiLU, convolution, twice, plus the input.

    With `repeats` every frame is first repeated, as the pass says. What looks at single frames then sees it once.
    """

    def __init__(self, channels: int, out_channels: int, layout: Layout, *, repeats: bool = False) -> None:
        super().__init__()
        self.repeats = repeats
        self.norm1 = layout.norm(channels)
        self.conv1 = CausalConv3d(channels, out_channels)
        self.norm2 = layout.norm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.shortcut = nn.Conv3d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T, H, W)`, or with `repeats` up to `2·T` frames."""
        y = self.norm1(x)
        y = time.convolve_repeated(self.conv1, y) if self.repeats else self.conv1.over(y, time)
        y = self.conv2.over(self.norm2(y), time)
        x = self.shortcut(x)
        y += time.stretch(self, x, repeated) if self.repeats else x
        return y


class _Attention(nn.Module):
    """Self-attention of the pixels of each frame, or of all frames together."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(layout.groups, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)
        self.heads = layout.heads
        self.by_frame = layout.attention == "frame"

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same shape, input added."""
        if self.by_frame:
            b, c, t, h, w = x.shape
            mixed = self._mixed(x.transpose(1, 2).reshape(b * t, c, h * w))
            return x + mixed.reshape(b, t, c, h, w).transpose(1, 2)
        return x + self._mixed(x.flatten(2)).view_as(x)

    def _mixed(self, pixels: Tensor) -> Tensor:
        """`(B, C, L)` to the same shape."""
        normed = self.group_norm(pixels).transpose(1, 2)
        q, k, v = (
            linear(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        out: Tensor = self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out.transpose(1, 2)


class DownBlock(nn.Module):
    """Residual blocks, then a downsampler unless it is the last stage."""

    def __init__(self, channels: int, out_channels: int, layout: Layout, *, downsample: bool, temporal: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            _ResBlock(channels if i == 0 else out_channels, out_channels, layout) for i in range(layout.layers)
        )
        self.downsampler = Downsampler(out_channels, temporal=temporal) if downsample else None
        self.halves_time = downsample and temporal

    def forward(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T', H', W')`."""
        # With temporal stride, pieces would have to be pairs of frames.
        pieces = (x,) if self.halves_time else time.pieces(x)
        return rejoin([self._piece(piece, time) for piece in pieces])

    def _piece(self, x: Tensor, time: TimePass) -> Tensor:
        for block in self.convs:
            x = block(x, time)
        return x if self.downsampler is None else self.downsampler(x, time)


class MidBlock(nn.Module):
    """Residual blocks, attention between them if the checkpoint has it."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_ResBlock(channels, channels, layout) for _ in range(layout.layers))
        self.attentions = nn.ModuleList()
        if layout.attention:
            self.attentions.extend(_Attention(channels, layout) for _ in range(layout.layers - 1))

    def forward(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to the same shape."""
        x = self.convs[0](x, time)
        for i, block in enumerate(self.convs[1:]):
            if self.attentions:
                x = self.attentions[i](x)
            x = block(x, time)
        return x


class UpBlock(nn.Module):
    """One residual block more than on the way down, then an upsampler unless it is the last stage.

    Args:
        channels: in.
        out_channels: out.
        layout: what all stages have in common.
        upsample: height and width are doubled at the end.
        lengthened: the stage before doubles time. Where norms look at single frames, its frames come once, and are
            repeated here.
        temporal: this stage does.
    """

    def __init__(
        self, channels: int, out_channels: int, layout: Layout, *, upsample: bool, lengthened: bool, temporal: bool
    ) -> None:
        super().__init__()
        repeats = lengthened and layout.frame_norm
        self.convs = nn.ModuleList(
            _ResBlock(channels if i == 0 else out_channels, out_channels, layout, repeats=repeats and i == 0)
            for i in range(layout.layers + 1)
        )
        smooth = temporal and not layout.frame_norm
        self.upsampler = Upsampler(out_channels, smooth=smooth) if upsample else None

    def forward(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T', H', W')`."""
        for block in self.convs:
            x = block(x, time)
        return x if self.upsampler is None else self.upsampler(x, time)
