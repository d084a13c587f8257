"""One block: joint attention of text and video, then a feed-forward for each."""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from easyanimate_core.denoisers.layers import AdaLayerNormZero
from easyanimate_core.denoisers.rotary import apply_rotary
from easyanimate_core.interfaces import AttentionBackend
from easyanimate_core.kernels.attention.reference import Sdpa

__all__ = ["Block", "Projections"]


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
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for linear in (self.to_q, self.to_k, self.to_v)
        )
        return self.norm_q(q), self.norm_k(k), v

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

    def _attend(self, video: Tensor, text: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Attention over [text, video]; positions turn only the video part. No mask: padding is attended."""
        length = text.shape[1]
        text_side = self.attn2 if self.attn2 is not None else self.attn1
        q, k, v = self.attn1.qkv(video)
        text_q, text_k, text_v = text_side.qkv(text)
        q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        joint = self.backend(
            torch.cat([text_q, q], dim=2), torch.cat([text_k, k], dim=2), torch.cat([text_v, v], dim=2)
        )
        return self.attn1.out(joint[:, :, length:]), text_side.out(joint[:, :, :length])

    def forward(self, video: Tensor, text: Tensor, temb: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """`video (B, S, D)`, `text (B, L, D)`, `temb (B, T)`, tables `(S, head_dim)` to new video and text."""
        normed, normed_text, gate, text_gate = self.norm1(video, text, temb)
        attended, attended_text = self._attend(normed, normed_text, (cos, sin))
        video = video + gate * attended
        text = text + text_gate * attended_text

        normed, normed_text, gate, text_gate = self.norm2(video, text, temb)
        fed = self.ff(normed)
        fed_text = (self.txt_ff if self.txt_ff is not None else self.ff)(normed_text)
        if self.norm3 is not None:
            fed, fed_text = self.norm3(fed), self.norm3(fed_text)
        return video + gate * fed, text + text_gate * fed_text
