"""Layer norm, then shift and scale by the time embedding: the entrance of every attention and feed-forward."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from easyanimate_core.kernels.ada_norm import reference as _definition
from easyanimate_core.kernels.op import Op

__all__ = ["OP", "ada_norm", "misfit"]

_WIDEST = 16384


def misfit(x: Tensor, *_: object) -> str | None:
    """Why rows like these do not go through the Triton kernel; `None` when they do."""
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it takes float32, float16 and bfloat16, not {x.dtype}"
    if x.ndim != 3:
        return f"it takes (T, B, D), not {x.ndim} dimensions"
    return None if x.shape[-1] <= _WIDEST else f"rows of {x.shape[-1]} are wider than {_WIDEST}"


OP: Final = Op(
    "ada_norm",
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor vectors, int text, float eps) -> Tensor",
    _definition.ada_norm,
    fake=lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format),
    kernel="easyanimate_core.kernels.ada_norm.triton:ada_norm",
    misfit=misfit,
)
"""`torch.ops.easyanimate.ada_norm`."""


def ada_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, vectors: Tensor, text: int, eps: float) -> Tensor:
    """`LN(x)·(1 + scale) + shift`, statistics in float32 (Peebles and Xie, "Scalable Diffusion Models with
    Transformers", 2023, section 3.2).

    Args:
        x: `(T, B, D)`, token by token; text comes before video.
        weight: of the norm, `(D,)`, or `None`.
        bias: of the norm, `(D,)`, or `None`.
        vectors: `(B, n, D)` or `(1, n, D)`: shift, scale and gate of the video, then of the text; those that nobody
            reads may be missing at the end.
        text: how many of the tokens are text.
        eps: added to the variance.

    Returns:
        `(T, B, D)` in the type of `x`. The kernel rounds once, at the end; the definition rounds after the norm too.
    """
    y: Tensor = OP(x, weight, bias, vectors, text, eps)
    return y
