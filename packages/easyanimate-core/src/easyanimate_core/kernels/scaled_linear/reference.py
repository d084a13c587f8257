"""The definition of a linear layer whose weights are kept in one byte each."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["restored", "scaled_linear"]


def restored(weight: Tensor, scale: Tensor | None, like: Tensor) -> Tensor:
    """Stored weights `(out, in)` in the type of `like`: `stored·scale` row by row, or a plain cast without scale."""
    wide = weight.to(like.dtype)  # exact: every type that is computed in holds all numbers of a byte
    # The product is one of float32, whatever it is written as: rounded once.
    return wide if scale is None else wide.mul_(scale[:, None])


def scaled_linear(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """`x·(stored·scale)ᵀ + bias`; see `easyanimate_core.kernels.scaled_linear.scaled_linear`."""
    return F.linear(x, restored(weight, scale, x), None if bias is None else bias.to(x.dtype))
