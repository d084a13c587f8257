"""The definition of attention: torch's own scaled dot-product attention, on any device, differentiable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import AttentionCall

__all__ = ["Matmul", "Sdpa", "as_bytes", "attention", "int8_attention", "laid_out_as"]


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bound: float | None = None) -> Tensor:
    """`softmax(scale·q·kᵀ)·v` over `(B, N, L, D)`; the bound changes nothing but how a kernel gets there."""
    return scaled_dot_product_attention(q, k, v, scale=scale)


def laid_out_as(q: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty result for queries `(B, N, L, D)`, laid out in memory as they are: whoever joins the heads afterwards
    then finds them beside each other where the queries' are. Heads themselves are always whole."""
    format_ = torch.preserve_format if q.stride(-1) == 1 else torch.contiguous_format
    return torch.empty_like(q, dtype=dtype, memory_format=format_)


def as_bytes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every token of `(B, N, L, D)` as int8, its largest value at ±127, and float32 scales `(B, N, L)`."""
    wide = x.float()
    scale = wide.abs().amax(-1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (wide / scale[..., None]).round().to(torch.int8), scale


def int8_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`attention` of queries and keys as bytes; rounding lets the gradient of the exact one through."""
    centred = k.float() - k.float().mean(2, keepdim=True)
    rounded = []
    for exact in (q.float(), centred):
        steps, size = as_bytes(exact.detach())
        rounded.append((exact + (steps.float() * size[..., None] - exact).detach()).to(v.dtype))
    return scaled_dot_product_attention(rounded[0], rounded[1], v, scale=scale)


class Sdpa:
    """softmax(q·kᵀ·scale + mask)·v by `torch.nn.functional.scaled_dot_product_attention`."""

    def supports(self, call: AttentionCall) -> None:
        """Always `None`: every call can run."""
        return None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`.

        Args:
            q: queries.
            k: keys; their length may differ from the queries'.
            v: values, as long as the keys.
            mask: broadcastable to `(B, N, L, L_k)`; boolean (true = attend) or added to the logits.
            scale: of the logits; `1/√D` when `None`.
        """
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


class Matmul:
    """Attention by two matrix products and a softmax, on any device.

    Keeps the whole `(L, L)` matrix, so it is for short sequences. There its backward pass is several times faster than
    torch's own kernel on CPUs in bfloat16, which is what training a small model needs.
    """

    def supports(self, call: AttentionCall) -> str | None:
        """`None` up to 4096 tokens; beyond, the matrix of scores would be too large."""
        return None if call.length <= 4096 else f"{call.length} tokens make too large a matrix of scores"

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`softmax(q·kᵀ·scale + mask)·v` over `(B, N, L, D)`; `scale` defaults to `1/√D`; a boolean mask is true
        where attention is allowed."""
        scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1).to(v.dtype) @ v
