"""Attention with released names, on any backend of the `attention` slot."""

from __future__ import annotations

from torch import Tensor, nn

from easyanimate_core.interfaces import AttentionBackend
from easyanimate_core.kernels.attention.reference import Sdpa

__all__ = ["Attention"]


class Attention(nn.Module):
    """Self attention, or cross attention to a context of the same or another width.

    Args:
        width: of the tokens, in and out.
        heads: how many.
        inner: width of all heads together; `width` when `None`.
        context: width of what is attended to; `width` when `None`.
        bias: whether query, key and value have one; the output always has.
        upcast: attend in float32 whatever the tokens' type.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        inner: int | None = None,
        context: int | None = None,
        bias: bool = True,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        inner, context = inner or width, context or width
        self.to_q = nn.Linear(width, inner, bias=bias)
        self.to_k = nn.Linear(context, inner, bias=bias)
        self.to_v = nn.Linear(context, inner, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])
        self.heads = heads
        self.upcast = upcast
        self.backend: AttentionBackend = Sdpa()

    def attend(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x (B, L, D)` and `context (B, L_k, D_k)` to `(B, L, D)`.

        Args:
            x: asks.
            context: is asked; `x` itself for self attention.
            mask: added to the logits, broadcastable to `(B, N, L, L_k)`.
        """
        q, k, v = (
            linear(given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, given in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        if self.upcast:
            q, k, v, mask = q.float(), k.float(), v.float(), None if mask is None else mask.float()
        attended = self.backend(q, k, v, mask=mask).transpose(1, 2).flatten(2).to(x.dtype)
        y: Tensor = self.to_out[0](attended)
        return y

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """As `attend`, to `x` itself when there is no context."""
        return self.attend(x, x if context is None else context, mask)
