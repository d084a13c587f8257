"""The definition: norm of every head, rotation of the video's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["qk_norm_rope", "rotated"]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (even, odd) of `(…, D)` by tables that broadcast to it, in float32 (Su et al., "RoFormer", 2021)."""
    wide = x if x.dtype.itemsize > 4 else x.float()
    even, odd = wide.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (wide * cos + turned * sin).to(x.dtype)


def qk_norm_rope(
    x: Tensor,
    text_weight: Tensor,
    text_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> Tensor:
    """Norm, and rotation behind the text; see `easyanimate_core.kernels.qk_norm_rope.qk_norm_rope`."""
    text, dim = x.shape[0] - cos.shape[0], x.shape[-1:]
    seen = rotated(F.layer_norm(x[text:], dim, weight, bias, eps), cos[:, None, None], sin[:, None, None])
    return torch.cat([F.layer_norm(x[:text], dim, text_weight, text_bias, eps), seen])
