"""What attention or a feed-forward made is added, gated, and made ready for what comes next, in one pass."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from easyanimate_core.kernels.ada_norm import misfit
from easyanimate_core.kernels.gate_residual_norm import reference as _definition
from easyanimate_core.kernels.op import Op

__all__ = ["OP", "gate_residual_norm"]


def _fake(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        torch.empty_like(x, memory_format=torch.contiguous_format),
    )


OP: Final = Op(
    "gate_residual_norm",
    "(Tensor x, Tensor y, Tensor gates, Tensor? weight, Tensor? bias, Tensor vectors, int text, float eps)"
    " -> (Tensor, Tensor)",
    _definition.gate_residual_norm,
    fake=_fake,
    kernel="easyanimate_core.kernels.gate_residual_norm.triton:gate_residual_norm",
    misfit=misfit,
)
"""`torch.ops.easyanimate.gate_residual_norm`."""


def gate_residual_norm(
    x: Tensor,
    y: Tensor,
    gates: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    vectors: Tensor,
    text: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`r = x + gate·y` and `LN(r)·(1 + scale) + shift`, statistics in float32.

    Args:
        x: the residual stream, `(T, B, D)`, token by token; text comes before video.
        y: what is added, the same shape.
        gates: `(B, n, D)` or `(1, n, D)`: shift, scale and gate of the video, then of the text, of which the gates are
            read.
        weight: of the norm, `(D,)`, or `None`.
        bias: of the norm, `(D,)`, or `None`.
        vectors: as `gates`; shifts and scales are read.
        text: how many of the tokens are text.
        eps: added to the variance.

    Returns:
        `r` and the modulated norm, both `(T, B, D)` in the type of `x`. The norm is taken of `r` as rounded to that
        type, as the definition does.
    """
    residual, normed = OP(x, y, gates, weight, bias, vectors, text, eps)
    return residual, normed
