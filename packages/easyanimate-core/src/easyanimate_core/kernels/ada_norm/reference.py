"""The definition of adaptive layer norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ada_norm", "layer_norm", "of_tokens"]


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of the last dimension, in float32, back to the type of `x`; float64 stays float64."""
    wide = x if x.dtype.itemsize > 4 else x.float()
    w, b = (None if p is None else p.to(wide.dtype) for p in (weight, bias))
    return F.layer_norm(wide, (x.shape[-1],), w, b, eps).to(x.dtype)


def of_tokens(vectors: Tensor, which: int, tokens: int, text: int) -> Tensor:
    """Number `which` (shift, scale, gate) of `vectors (B or 1, 6, D)` for each token, `(T, B or 1, D)`; the first
    `text` tokens take the second three."""
    video = vectors[None, :, which].expand(tokens - text, -1, -1)
    return video if text == 0 else torch.cat([vectors[None, :, 3 + which].expand(text, -1, -1), video])


def ada_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, vectors: Tensor, text: int, eps: float) -> Tensor:
    """`LN(x)·(1 + scale) + shift`; see `easyanimate_core.kernels.ada_norm.ada_norm`."""
    shift, scale = (of_tokens(vectors, which, x.shape[0], text) for which in (0, 1))
    return layer_norm(x, weight, bias, eps) * (1 + scale) + shift
