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
        return f"it takes (B, S, D), not {x.ndim} dimensions"
    return None if x.shape[-1] <= _WIDEST else f"rows of {x.shape[-1]} are wider than {_WIDEST}"


OP: Final = Op(
    "ada_norm",
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor scale, Tensor shift, float eps) -> Tensor",
    _definition.ada_norm,
    fake=lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format),
    kernel="easyanimate_core.kernels.ada_norm.triton:ada_norm",
    misfit=misfit,
)
"""`torch.ops.easyanimate.ada_norm`."""


def ada_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """`LN(x)·(1 + scale) + shift`, statistics in float32 (Peebles and Xie, "Scalable Diffusion Models with
    Transformers", 2023, section 3.2).

    Args:
        x: `(B, S, D)`.
        weight: of the norm, `(D,)`, or `None`.
        bias: of the norm, `(D,)`, or `None`.
        scale: `(B, 1, D)` or `(1, 1, D)`.
        shift: the same.
        eps: added to the variance.

    Returns:
        `(B, S, D)` in the type of `x`. The kernel rounds once, at the end; the definition rounds after the norm too.
    """
    y: Tensor = OP(x, weight, bias, scale, shift, eps)
    return y
