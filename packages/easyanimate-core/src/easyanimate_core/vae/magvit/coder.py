"""Encoder and decoder: the stages in the order in which the data meets them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from easyanimate_core.vae.magvit.blocks import DownBlock, Layout, MidBlock, UpBlock
from easyanimate_core.vae.magvit.causal_conv import CausalConv3d
from easyanimate_core.vae.magvit.passes import TimePass, rejoin
from easyanimate_core.vae.magvit.schemes import Run

__all__ = ["Decoder", "Encoder"]


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
            DownBlock(widths[max(i - 1, 0)], width, layout, downsample=i < last, temporal=temporal[i])
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], layout)
        self.conv_norm_out = layout.norm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], out_channels)

    def forward(self, x: Tensor, run: Run) -> Tensor:
        """One run of a pass over time: `x` are its frames."""
        x = self.conv_in.over(x, run.time)
        for block in self.down_blocks:
            x = block(x, run.time)
        x = self.mid_block(x, run.time)
        return self.conv_out.over(self.conv_norm_out(x), run.time)


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
        self.mid_block = MidBlock(reverse[0], layout)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                reverse[max(i - 1, 0)],
                width,
                layout,
                upsample=i < last,
                lengthened=i > 0 and temporal[i - 1],
                temporal=temporal[i],
            )
            for i, width in enumerate(reverse)
        )
        self.conv_norm_out = layout.norm(reverse[-1])
        self.conv_out = CausalConv3d(reverse[-1], out_channels)

    def forward(self, z: Tensor, run: Run) -> Tensor:
        """One run of a pass over time: `z` are the latents that it sees, the pixels are of its own."""
        x = self.mid_block(self.conv_in.over(z, run.time), run.time)
        return self._raised(x[:, :, run.own], 0, run.time)

    def _raised(self, x: Tensor, stage: int, time: TimePass) -> Tensor:
        """Through the stages from `stage` on. A piece goes all the way up before the next one is begun."""
        if stage == len(self.up_blocks):
            return self.conv_out.over(self.conv_norm_out(x), time)
        done = [self._raised(self.up_blocks[stage](piece, time), stage + 1, time) for piece in time.pieces(x)]
        return rejoin(done)
