"""One layer: attention within each frame, motion between frames, attention to the text, a feed-forward."""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn

from easyanimate_core.denoisers.pixart.attention import Attention
from easyanimate_core.denoisers.pixart.motion import MotionModule

__all__ = ["Block"]


class Block(nn.Module):
    """A layer of the image model, with a motion module in it unless it makes single pictures.

    Args:
        width: of the tokens.
        attention: attention within a frame.
        cross: attention to the text.
        motion: the motion module, if there is one.
        eps: of the norms.
        affine: whether the norms have weights; released ones have none.
        activation: of the feed-forward.
        dropout: of the feed-forward.
    """

    def __init__(
        self,
        width: int,
        attention: Attention,
        cross: Attention,
        motion: MotionModule | None,
        *,
        eps: float = 1e-6,
        affine: bool = False,
        activation: str = "gelu-approximate",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(width, eps=eps, elementwise_affine=affine)
        self.attn1 = attention
        self.attn_temporal = motion
        self.attn2 = cross
        self.norm2 = FP32LayerNorm(width, eps=eps, elementwise_affine=affine)
        self.ff = FeedForward(width, dropout=dropout, activation_fn=activation)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def told(self, modulation: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of attention, then of the feed-forward, `(B, 1, D)` each, from `(B, 6, D)`."""
        return (self.scale_shift_table + modulation)[:, :, None].unbind(1)

    def forward(
        self, video: Tensor, text: Tensor, mask: Tensor, modulation: Tensor, grid: tuple[int, int, int]
    ) -> Tensor:
        """`video (B, S, D)`, `text (B, L, D)`, `mask (B, 1, 1, L)`, `modulation (B, 6, D)` to new video tokens."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = self.told(modulation)
        normed = self.norm1(video) * (1 + scale) + shift
        within = self.attn1(normed.unflatten(1, (grid[0], -1)).flatten(0, 1))
        video = video + gate * within.reshape(video.shape)
        if self.attn_temporal is not None:
            video = self.attn_temporal(video, grid)
        video = video + self.attn2(video, text, mask)
        y: Tensor = video + ff_gate * self.ff(self.norm2(video) * (1 + ff_scale) + ff_shift)
        return y
