"""What attention made is added, gated, and made ready for the feed-forward, in one pass over memory."""

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
    "(Tensor x, Tensor y, Tensor gate, Tensor? weight, Tensor? bias, Tensor scale, Tensor shift, float eps)"
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
    gate: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`r = x + gate·y` and `LN(r)·(1 + scale) + shift`, statistics in float32.

    Args:
        x: the residual stream, `(B, S, D)`.
        y: what is added, the same shape.
        gate: `(B, 1, D)` or `(1, 1, D)`.
        weight: of the norm, `(D,)`, or `None`.
        bias: of the norm, `(D,)`, or `None`.
        scale: as `gate`.
        shift: as `gate`.
        eps: added to the variance.

    Returns:
        `r` and the modulated norm, both `(B, S, D)` in the type of `x`. The norm is taken of `r` as rounded to that
        type, as the definition does.
    """
    residual, normed = OP(x, y, gate, weight, bias, scale, shift, eps)
    return residual, normed
