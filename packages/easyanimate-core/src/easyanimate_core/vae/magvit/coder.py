"""Encoder and decoder: the stages in the order in which the data meets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from easyanimate_core.vae.magvit.blocks import DownBlock, FrameGroupNorm, MidBlock, UpBlock
from easyanimate_core.vae.magvit.causal_conv import CausalConv3d

if TYPE_CHECKING:
    from easyanimate_core.vae.magvit.causal_conv import TimeStream

__all__ = ["Decoder", "Encoder", "Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What encoder and decoder have in common.

    Attributes:
        layers: residual blocks per stage.
        groups: of every group norm.
        attention_heads: in the middle; `None` without attention.
    """

    layers: int
    groups: int
    attention_heads: int | None


class Encoder(nn.Module):
    """Pixels `(B, 3, T, H, W)` to features of the posterior `(B, 2·Z, T', H', W')`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        temporal: Sequence[bool],
        layout: Layout,
    ) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(in_channels, widths[0])
        last = len(widths) - 1
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[max(i - 1, 0)],
                width,
                layers=layout.layers,
                groups=layout.groups,
                downsample=i < last,
                temporal=temporal[i],
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(
            widths[-1], layers=layout.layers, groups=layout.groups, attention_heads=layout.attention_heads
        )
        self.conv_norm_out = FrameGroupNorm(layout.groups, widths[-1])
        self.conv_out = CausalConv3d(widths[-1], out_channels)

    def forward(self, x: Tensor, stream: TimeStream) -> Tensor:
        """One chunk of a pass over time."""
        x = self.conv_in.causal(x, stream)
        for block in self.down_blocks:
            x = block(x, stream)
        x = self.mid_block(x, stream)
        return self.conv_out.causal(F.silu(self.conv_norm_out(x)), stream)


class Decoder(nn.Module):
    """Latents `(B, Z, T, H, W)` to pixels `(B, 3, T', H', W')`; one residual block more per stage."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        temporal: Sequence[bool],
        layout: Layout,
    ) -> None:
        super().__init__()
        reverse = list(reversed(widths))
        last = len(widths) - 1
        self.conv_in = CausalConv3d(in_channels, reverse[0])
        self.mid_block = MidBlock(
            reverse[0], layers=layout.layers, groups=layout.groups, attention_heads=layout.attention_heads
        )
        self.up_blocks = nn.ModuleList(
            UpBlock(
                reverse[max(i - 1, 0)],
                width,
                layers=layout.layers + 1,
                groups=layout.groups,
                upsample=i < last,
                temporal=temporal[i],
            )
            for i, width in enumerate(reverse)
        )
        self.conv_norm_out = FrameGroupNorm(layout.groups, reverse[-1])
        self.conv_out = CausalConv3d(reverse[-1], out_channels)

    def forward(self, z: Tensor, stream: TimeStream) -> Tensor:
        """One chunk of a pass over time."""
        x = self.conv_in.causal(z, stream)
        x = self.mid_block(x, stream)
        for block in self.up_blocks:
            x = block(x, stream)
        return self.conv_out.causal(F.silu(self.conv_norm_out(x)), stream)
