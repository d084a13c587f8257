"""One block: attention over the whole clip, then over the text and the picture, then a feed-forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn

from easyanimate_core.denoisers.rotary import apply_rotary
from easyanimate_core.interfaces import AttentionBackend
from easyanimate_core.kernels.attention.reference import Sdpa

__all__ = ["Attention", "Block", "FramePositions"]

_EPS = 1e-6


class Attention(nn.Module):
    """Attention of the video to itself or to a context, with a norm on each head's query and key."""

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        read = width if context_width is None else context_width
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(read, width)
        self.to_v = nn.Linear(read, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q = nn.LayerNorm(width // heads, eps=_EPS)
        self.norm_k = nn.LayerNorm(width // heads, eps=_EPS)
        self.heads = heads
        self.backend: AttentionBackend = Sdpa()

    def forward(self, x: Tensor, context: Tensor | None = None, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """`x (B, S, D)` and, unless it attends to itself, `context (B, L, context_width)` to `(B, S, D)`.

        Positions turn queries; keys only where they are of the video too.
        """
        source = x if context is None else context
        q, k, v = (
            linear(part).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, part in ((self.to_q, x), (self.to_k, source), (self.to_v, source))
        )
        q, k = self.norm_q(q), self.norm_k(k)
        if rotary is not None:
            q = apply_rotary(q, *rotary)
            k = apply_rotary(k, *rotary) if context is None else k
        y: Tensor = self.to_out[0](self.backend(q, k, v).transpose(1, 2).flatten(2))
        return y


class FramePositions(nn.Module):
    """Sines and cosines of the frame's number, stored in checkpoints. Vaswani et al. (2017), section 3.5."""

    def __init__(self, width: int, frames: int = 512) -> None:
        super().__init__()
        # Frequencies are computed and then stored in float32, as the released tables were.
        frequency = torch.exp(torch.arange(0, width, 2).float() * (-torch.log(torch.tensor(10000.0)) / width))
        angle = torch.arange(frames).float()[:, None] * frequency
        self.pe: Tensor
        self.register_buffer("pe", torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[None])

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Adds its frame's row to every token of `(B, frames·n, D)`; a picture alone has no position in time."""
        if frames == 1:
            return x
        table = self.pe[:, :frames].to(x)
        placed: Tensor = (x.unflatten(1, (frames, -1)) + table[:, :, None]).flatten(1, 2)
        return placed


class _ShiftedNorm(nn.Module):
    """A norm in float32, then a shift that depends on the global embedding; there is no scale and no gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = FP32LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        """`(B, S, D)` and `(B, D)` to `(B, S, D)`."""
        shift: Tensor = self.linear(F.silu(temb.float()).to(temb.dtype))
        y: Tensor = self.norm(x) + shift[:, None]
        return y


class _Gate(nn.Module):
    """A gated linear unit after a norm: Shazeer, "GLU Variants Improve Transformer" (2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The released code put the width where the epsilon belongs. The weights were trained with it.
        self.norm = FP32LayerNorm(width, eps=float(width))
        self.proj = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, S, D)` to `(B, S, D)`."""
        value, gate = self.proj(self.norm(x)).chunk(2, dim=-1)
        y: Tensor = value * F.gelu(gate)
        return y


class Block(nn.Module):
    """A block of the transformer.

    Args:
        width: D of the video tokens.
        heads: of every attention in it.
        context_width: of text and picture tokens.
        feed_width: inside the feed-forward.
        positions: adds each frame's position in time.
        turned: self-attention knows positions in space; all but the first block do.
        picture: attends to a picture's tokens too.
        skip: takes tokens of an earlier block.
        after_norm: a norm after the feed-forward.
        activation: of the feed-forward, as diffusers names it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        context_width: int,
        feed_width: int,
        *,
        positions: bool = True,
        turned: bool = True,
        picture: bool = False,
        skip: bool = False,
        after_norm: bool = False,
        activation: str = "gelu-approximate",
    ) -> None:
        super().__init__()
        self.turned = turned
        self.skip_norm = FP32LayerNorm(2 * width, eps=_EPS) if skip else None
        self.skip_linear = nn.Linear(2 * width, width) if skip else None
        self.t_embed = FramePositions(width) if positions else None
        self.norm1 = _ShiftedNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = FP32LayerNorm(width, eps=_EPS)
        self.attn2 = Attention(width, heads, context_width)
        self.norm_clip = FP32LayerNorm(width, eps=_EPS) if picture else None
        self.attn_clip = Attention(width, heads, context_width) if picture else None
        self.gate_clip = _Gate(width) if picture else None
        self.norm_clip_out = FP32LayerNorm(width, eps=_EPS) if picture else None
        self.norm3 = FP32LayerNorm(width, eps=_EPS)
        self.ff = FeedForward(width, inner_dim=feed_width, activation_fn=activation, final_dropout=True)
        self.norm4 = FP32LayerNorm(width, eps=_EPS) if after_norm else None

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        temb: Tensor,
        cos: Tensor,
        sin: Tensor,
        frames: int,
        picture: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        """`x (B, S, D)` to `(B, S, D)`.

        Args:
            x: video tokens, frame-major.
            text: `(B, L, context_width)`.
            temb: `(B, D)`.
            cos: `(S, head_dim)` float32.
            sin: the same shape.
            frames: how many frames the tokens are of.
            picture: `(B, n, context_width)`, for a block that attends to one.
            skip: `(B, S, D)`, for a block that takes it.
        """
        rotary = (cos, sin)
        if self.skip_norm is not None and self.skip_linear is not None:
            assert skip is not None
            x = self.skip_linear(self.skip_norm(torch.cat([x, skip], dim=-1)))
        x = self.placed(x, frames)
        x = x + self.attn1(self.norm1(x, temb), rotary=rotary if self.turned else None)
        x = x + self.attn2(self.norm2(x), text, rotary)
        if self.attn_clip is not None and self.norm_clip is not None:
            assert picture is not None
            x = x + self._seen(self.attn_clip(self.norm_clip(x), picture, rotary))
        fed: Tensor = self.ff(self.norm3(x))
        return x + (fed if self.norm4 is None else self.norm4(fed))

    def placed(self, x: Tensor, frames: int) -> Tensor:
        """`x (B, S, D)` with each frame's position in time, if the block adds it."""
        y: Tensor = x if self.t_embed is None else self.t_embed(x, frames)
        return y

    def _seen(self, x: Tensor) -> Tensor:
        """What attention to a picture adds."""
        assert self.gate_clip is not None
        assert self.norm_clip_out is not None
        y: Tensor = self.norm_clip_out(self.gate_clip(x))
        return y
