"""The definition of adaptive layer norm."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["ada_norm", "layer_norm"]


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of the last dimension, in float32, back to the type of `x`; float64 stays float64."""
    wide = x if x.dtype.itemsize > 4 else x.float()
    w, b = (None if p is None else p.to(wide.dtype) for p in (weight, bias))
    return F.layer_norm(wide, (x.shape[-1],), w, b, eps).to(x.dtype)


def ada_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """`LN(x)·(1 + scale) + shift`; see `easyanimate_core.kernels.ada_norm.ada_norm`."""
    return layer_norm(x, weight, bias, eps) * (1 + scale) + shift
