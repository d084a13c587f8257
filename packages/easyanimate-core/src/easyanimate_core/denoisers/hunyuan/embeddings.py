"""What V4 makes of everything that is no video: timestep, sizes, style, text and picture to vectors and tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from easyanimate_core.denoisers.layers import Timestep, sinusoid
from easyanimate_core.errors import IncompatibleConditions

__all__ = ["GlobalEmbedding", "PictureProjection", "Pooler", "Projection"]

_FREQUENCIES = 256
_SIZES = 6


class Projection(nn.Module):
    """Two linear layers with SiLU, in float32, between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, hidden)
        self.linear_2 = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, inputs)` to `(…, outputs)`."""
        y: Tensor = self.linear_2(F.silu(self.linear_1(x).float()).to(x.dtype))
        return y


class Pooler(nn.Module):
    """Text tokens to one vector: their mean attends to all of them. Padding counts, as in training."""

    def __init__(self, length: int, width: int, outputs: int, heads: int = 8) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(length + 1, width) / width**0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, outputs)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)`, exactly as many tokens as in training, to `(B, outputs)`."""
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding.to(x.dtype)
        q, k, v = (
            linear(part).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, part in ((self.q_proj, x[:, :1]), (self.k_proj, x), (self.v_proj, x))
        )
        pooled: Tensor = self.c_proj(F.scaled_dot_product_attention(q, k, v).flatten(1))
        return pooled


class GlobalEmbedding(nn.Module):
    """Timestep, pooled text, picture sizes and style to the vector that every block is shifted by."""

    def __init__(self, width: int, text_length: int, text_width: int, pooled: int) -> None:
        super().__init__()
        self.timestep_embedder = Timestep(_FREQUENCIES, width)
        self.pooler = Pooler(text_length, text_width, pooled)
        self.style_embedder = nn.Embedding(1, width)
        self.extra_embedder = Projection(_FREQUENCIES * _SIZES + width + pooled, 4 * width, width)

    def forward(self, timestep: Tensor, text: Tensor, size: Tensor) -> Tensor:
        """`timestep (B,)`, `text (B, L, text_width)`, `size (B, 6)` in pixels to `(B, width)`.

        There is one style, 0: the only one that was ever trained.
        """
        dtype, batch = text.dtype, text.shape[0]
        sizes = sinusoid(size.flatten(), _FREQUENCIES).to(dtype).reshape(batch, -1)
        style = self.style_embedder(torch.zeros(batch, dtype=torch.long, device=text.device))
        extra = torch.cat([self.pooler(text), sizes, style.to(dtype)], dim=1)
        embedded: Tensor = self.timestep_embedder(timestep, dtype) + self.extra_embedder(extra)
        return embedded


class PictureProjection(nn.Module):
    """Image tokens to a fixed number of context tokens: learnt queries attend to them.

    As the resampler of Bai et al., "Qwen-VL" (2023), section 2.1. The position table is square and is stretched to
    the picture's grid.
    """

    def __init__(self, queries: int, width: int, heads: int, image_width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(queries, width), requires_grad=False)
        self.query = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.kv_proj = nn.Linear(image_width, width, bias=False) if image_width != width else nn.Identity()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_q = nn.LayerNorm(width)
        self.ln_kv = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, n, image_width)`, n a square number, to `(B, queries, width)`."""
        x = self.ln_kv(self.kv_proj(tokens)).transpose(0, 1)
        queries = (self.ln_q(self.query) + self.pos_embed)[:, None].expand(-1, x.shape[1], -1)
        keys = x + self._positions(x.shape[0])[:, None]
        attended: Tensor = self.attn(queries, keys, x, need_weights=False)[0]
        return attended.transpose(0, 1)

    def _positions(self, count: int) -> Tensor:
        """The table for `count` tokens, `(count, width)`."""
        table = self.pos_embed
        have, want = math.isqrt(table.shape[0]), math.isqrt(count)
        if want * want != count:
            raise IncompatibleConditions(
                f"a picture has {count} tokens, which do not make a square",
                "Give those of all its patches, and no other.",
            )
        if have == want:
            return table
        square = table.float().reshape(1, have, have, -1).permute(0, 3, 1, 2)
        stretched = F.interpolate(square, size=(want, want), mode="bicubic", align_corners=False)
        return stretched.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)
