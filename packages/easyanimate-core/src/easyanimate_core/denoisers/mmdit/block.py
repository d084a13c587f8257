"""One block: joint attention of text and video, then a feed-forward for each."""

from __future__ import annotations

import math
from typing import cast

from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from easyanimate_core.denoisers.layers import AdaLayerNormZero
from easyanimate_core.denoisers.mmdit.fused import (
    add_gated,
    add_gated_and_modulate,
    feed_forward,
    joint_heads,
    modulate,
)
from easyanimate_core.interfaces import AttentionBackend
from easyanimate_core.kernels.attention.reference import Sdpa
from easyanimate_core.kernels.op import fusing

__all__ = ["Block", "BlockVectors", "Projections"]

BlockVectors = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""What a block takes from the time embedding: shift, scale and gate of video, then of text, `(B, 1, D)` each, for
attention and for the feed-forward."""


class Projections(nn.Module):
    """Query, key, value and output projections of one stream, with a norm on each head's query and key."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.to_q = nn.Linear(width, inner)
        self.to_k = nn.Linear(width, inner)
        self.to_v = nn.Linear(width, inner)
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])
        self.norm_q = nn.LayerNorm(head_dim, eps=1e-6)
        self.norm_k = nn.LayerNorm(head_dim, eps=1e-6)
        self.heads = heads

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(B, L, D)` to query, key and value, each `(B, N, L, head_dim)`."""
        q, k, v = (head.transpose(1, 2) for head in self.heads_of(x))
        return self.norm_q(q), self.norm_k(k), v

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(B, L, D)` to query, key and value as projected, each `(B, L, N, head_dim)`."""
        q, k, v = (linear(x).unflatten(-1, (self.heads, -1)) for linear in (self.to_q, self.to_k, self.to_v))
        return q, k, v

    def longest(self) -> tuple[float, float]:
        """No query, and no key, is longer than this: a layer norm's output before its weight has length √head_dim."""
        lengths = []
        for norm in (self.norm_q, self.norm_k):
            weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
            lengths.append(math.sqrt(weight.numel()) * float(weight.abs().max()) + float(bias.norm()))
        return lengths[0], lengths[1]

    def out(self, x: Tensor) -> Tensor:
        """`(B, N, L, head_dim)` to `(B, L, D)`."""
        y: Tensor = self.to_out[0](x.transpose(1, 2).flatten(2))
        return y


class Block(nn.Module):
    """A block with own text weights (`own_text`) or, in the second half of the 7B models, shared ones."""

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        time_dim: int,
        *,
        own_text: bool,
        eps: float = 1e-5,
        affine: bool = True,
        after_norm: bool = False,
        activation: str = "gelu-approximate",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = AdaLayerNormZero(time_dim, width, eps=eps, affine=affine)
        self.attn1 = Projections(width, heads, head_dim)
        self.attn2 = Projections(width, heads, head_dim) if own_text else None
        self.norm2 = AdaLayerNormZero(time_dim, width, eps=eps, affine=affine)
        self.ff = FeedForward(width, dropout=dropout, activation_fn=activation, final_dropout=True)
        self.txt_ff = (
            FeedForward(width, dropout=dropout, activation_fn=activation, final_dropout=True) if own_text else None
        )
        self.norm3 = nn.LayerNorm(width, eps=eps, elementwise_affine=affine) if after_norm else None
        self.backend: AttentionBackend = Sdpa()

    def vectors(self, temb: Tensor) -> BlockVectors:
        """What the block takes from the time embedding `(B, T)`; it depends on nothing else."""
        return self.norm1.vectors(temb), self.norm2.vectors(temb)

    def logit_bound(self) -> float:
        """No logit of attention is larger, in nats: products of the longest query and key. Rotation keeps lengths."""
        sides = [side.longest() for side in (self.attn1, self.attn2) if side is not None]
        head_dim = self.attn1.norm_q.weight.numel()
        return max(q for q, _ in sides) * max(k for _, k in sides) / math.sqrt(head_dim)

    def _attend(
        self, video: Tensor, text: Tensor, rotary: tuple[Tensor, Tensor], text_out: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attention over [text, video]; positions turn only the video part. No mask: padding is attended."""
        length = text.shape[1]
        text_side = self.attn2 if self.attn2 is not None else self.attn1
        q, k, v = joint_heads((text_side, text), (self.attn1, video), rotary)
        # On a CPU, fewer queries round differently; there the text's are asked too.
        if not text_out and fusing(video):
            return self.attn1.out(self.backend(q[:, :, length:], k, v)), None
        joint = self.backend(q, k, v)
        if not text_out:
            return self.attn1.out(joint[:, :, length:]), None
        return self.attn1.out(joint[:, :, length:]), text_side.out(joint[:, :, :length])

    def forward(
        self,
        video: Tensor,
        text: Tensor,
        temb: Tensor,
        cos: Tensor,
        sin: Tensor,
        vectors: BlockVectors | None = None,
        text_out: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """New video and text.

        Args:
            video: `(B, S, D)`.
            text: `(B, L, D)`.
            temb: `(B, T)`.
            cos: `(S, head_dim)`.
            sin: the same.
            vectors: what `vectors(temb)` gives, if it is known already.
            text_out: whether anyone reads the new text; if not, it is not computed, and `text` comes back as it was.
        """
        before, after = self.vectors(temb) if vectors is None else vectors
        shift, scale, gate, text_shift, text_scale, text_gate = before
        normed = modulate(self.norm1.norm, video, scale, shift)
        normed_text = modulate(self.norm1.norm, text, text_scale, text_shift)
        attended, attended_text = self._attend(normed, normed_text, (cos, sin), text_out)

        shift, scale, ff_gate, text_shift, text_scale, text_ff_gate = after
        video, normed = add_gated_and_modulate(self.norm2.norm, video, attended, gate, scale, shift)
        video = add_gated(video, self._fed(self.ff, normed), ff_gate)
        if attended_text is None:
            return video, text
        text, normed_text = add_gated_and_modulate(
            self.norm2.norm, text, attended_text, text_gate, text_scale, text_shift
        )
        return video, add_gated(text, self._fed(self.txt_ff or self.ff, normed_text), text_ff_gate)

    def _fed(self, module: nn.Module, x: Tensor) -> Tensor:
        fed = feed_forward(module, x)
        return fed if self.norm3 is None else cast("Tensor", self.norm3(fed))
