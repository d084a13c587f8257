"""The fused attention ops, beside their definitions."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from easyanimate_core.kernels.attention import reference
from easyanimate_core.kernels.op import Op

__all__ = ["ATTENTION_OP", "INT8_OP", "attention", "int8_attention", "largest_bound"]


def largest_bound(dtype: torch.dtype) -> float:
    """The largest bound of logits, in nats, with which a softmax needs no maximum in this type: no share of it
    overflows, and the smallest keeps its precision."""
    return 10.0 if dtype == torch.float16 else 40.0


def _misfit(q: Tensor, *_: object) -> str | None:
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it takes float32, float16 and bfloat16, not {q.dtype}"
    return None if q.shape[-1] <= 256 else f"heads of {q.shape[-1]} are wider than 256"


def _fake(q: Tensor, *_: object) -> Tensor:
    return reference.laid_out_as(q)


ATTENTION_OP: Final = Op(
    "attention",
    "(Tensor q, Tensor k, Tensor v, float scale, float? bound) -> Tensor",
    reference.attention,
    fake=_fake,
    kernel="easyanimate_core.kernels.attention.triton:attention",
    misfit=_misfit,
)
"""`torch.ops.easyanimate.attention`."""

INT8_OP: Final = Op(
    "int8_attention",
    "(Tensor q, Tensor k, Tensor v, float scale) -> Tensor",
    reference.int8_attention,
    fake=_fake,
    kernel="easyanimate_core.kernels.attention.triton:int8_attention",
    misfit=_misfit,
)
"""`torch.ops.easyanimate.int8_attention`."""


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bound: float | None = None) -> Tensor:
    """`softmax(scale·q·kᵀ)·v`, no mask.

    Args:
        q: `(B, N, L, D)`.
        k: `(B, N, L', D)`.
        v: as `k`.
        scale: of the logits.
        bound: no `|scale·q·kᵀ|` is larger, in nats. Above `largest_bound` it is not used. A bound that does not hold
            gives wrong results.

    Returns:
        `(B, N, L, D)` in the type of `q`, laid out in memory as `q` is.
    """
    safe = bound if bound is not None and bound <= largest_bound(q.dtype) else None
    y: Tensor = ATTENTION_OP(q, k, v, scale, safe)
    return y


def int8_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`attention` with queries and keys rounded to bytes, each token with its own scale, after the keys' mean is taken
    away. About one per cent of error; see `easyanimate_core.kernels.attention.triton`."""
    y: Tensor = INT8_OP(q, k, v, scale)
    return y
