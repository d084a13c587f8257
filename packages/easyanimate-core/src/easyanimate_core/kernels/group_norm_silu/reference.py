"""The definition of group norm by frame, then SiLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["group_norm_silu"]


def group_norm_silu(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
    """`(B, C, T, H, W)`; see `easyanimate_core.kernels.group_norm_silu.group_norm_silu`."""
    b, c, t, h, w = x.shape
    frames = F.group_norm(x.transpose(1, 2).reshape(b * t, c, h, w), groups, weight, bias, eps)
    if silu:
        frames = F.silu(frames, inplace=not torch.is_grad_enabled())
    return frames.view(b, t, c, h, w).transpose(1, 2)
