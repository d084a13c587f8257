"""One block: joint attention of text and video, then a feed-forward for each."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from easyanimate_core.denoisers.layers import AdaLayerNormZero
from easyanimate_core.denoisers.mmdit import fused
from easyanimate_core.denoisers.mmdit.plain import add_gated, joint_heads, modulate
from easyanimate_core.denoisers.mmdit.products import feed_forward, linear
from easyanimate_core.denoisers.mmdit.window import SlidingWindow
from easyanimate_core.interfaces import AttentionBackend
from easyanimate_core.kernels.attention.reference import Sdpa

__all__ = ["Block", "BlockVectors", "Projections", "Step"]

BlockVectors = tuple[Tensor, Tensor]
"""What a block takes from the time embedding: shift, scale and gate of video, then of text, `(B, 6, D)`, for attention
and for the feed-forward."""


class Step(NamedTuple):
    """What a block is given besides its streams.

    Attributes:
        temb: time embedding `(B, T)`.
        cos: of the rotation, `(S, head_dim)`.
        sin: the same.
        vectors: what `Block.vectors(temb)` gives, if it is known already; `(1, 6, D)` serve all samples.
        window: what the block attends to, if not to everything.
        text_out: whether anyone reads the new text; if not, it is not computed.
        fused: text and video lie in one buffer; see `easyanimate_core.denoisers.mmdit.fused`.
    """

    temb: Tensor
    cos: Tensor
    sin: Tensor
    vectors: BlockVectors | None = None
    window: SlidingWindow | None = None
    text_out: bool = True
    fused: bool = False


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
        layers = (self.to_q, self.to_k, self.to_v)
        q, k, v = (linear(layer, x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in layers)
        return self.norm_q(q), self.norm_k(k), v

    def longest(self) -> tuple[float, float]:
        """No query, and no key, is longer than this: a layer norm's output before its weight has length √head_dim."""
        lengths = []
        for norm in (self.norm_q, self.norm_k):
            weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
            lengths.append(math.sqrt(weight.numel()) * float(weight.abs().max()) + float(bias.norm()))
        return lengths[0], lengths[1]

    def out(self, x: Tensor) -> Tensor:
        """`(B, N, L, head_dim)` to `(B, L, D)`."""
        return linear(self.to_out[0], x.transpose(1, 2).flatten(2))


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

    def _attend(self, video: Tensor, text: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Attention over [text, video]; positions turn only the video part. No mask: padding is attended."""
        length = text.shape[1]
        text_side = self.attn2 if self.attn2 is not None else self.attn1
        heads = joint_heads((text_side, text), (self.attn1, video), (step.cos, step.sin))
        joint = self.backend(*heads) if step.window is None else step.window(*heads, self.backend)
        attended = self.attn1.out(joint[:, :, length:])
        return attended, text_side.out(joint[:, :, :length]) if step.text_out else None

    def forward(self, streams: list[Tensor], step: Step) -> list[Tensor]:
        """New video and text.

        Args:
            streams: video `(B, S, D)` and text `(B, L, D)`; with `step.fused`, what `fused.run` takes.
            step: what else the block needs.

        Returns:
            As `streams`; where `step.text_out` is false, the text comes back as it was.
        """
        if step.fused:
            return fused.run(self, streams, step)
        video, text = streams
        before, after = self.vectors(step.temb) if step.vectors is None else step.vectors
        shift, scale, gate, text_shift, text_scale, text_gate = before.split(1, dim=1)
        normed = modulate(self.norm1.norm, video, scale, shift)
        normed_text = modulate(self.norm1.norm, text, text_scale, text_shift)
        attended, attended_text = self._attend(normed, normed_text, step)

        shift, scale, ff_gate, text_shift, text_scale, text_ff_gate = after.split(1, dim=1)
        video = add_gated(video, attended, gate, self.attn1.to_out)
        fed = self._fed(self.ff, modulate(self.norm2.norm, video, scale, shift))
        video = add_gated(video, fed, ff_gate, self.ff)
        if attended_text is None:
            return [video, text]
        text_side, text_ff = self.attn2 or self.attn1, self.txt_ff or self.ff
        text = add_gated(text, attended_text, text_gate, text_side.to_out)
        fed = self._fed(text_ff, modulate(self.norm2.norm, text, text_scale, text_shift))
        return [video, add_gated(text, fed, text_ff_gate, text_ff)]

    def _fed(self, module: nn.Module, x: Tensor) -> Tensor:
        fed = feed_forward(module, x)
        return fed if self.norm3 is None else cast("Tensor", self.norm3(fed))
