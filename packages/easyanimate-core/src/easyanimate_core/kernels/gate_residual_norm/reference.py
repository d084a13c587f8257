"""The definition of a gated residual followed by adaptive layer norm."""

from __future__ import annotations

from torch import Tensor

from easyanimate_core.kernels.ada_norm.reference import ada_norm, of_tokens

__all__ = ["gate_residual_norm"]


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
    """`r = x + gate·y` and `LN(r)·(1 + scale) + shift`."""
    residual = x + of_tokens(gates, 2, x.shape[0], text) * y
    return residual, ada_norm(residual, weight, bias, vectors, text, eps)
