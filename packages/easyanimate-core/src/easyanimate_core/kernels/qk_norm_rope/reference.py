"""The definition: norm of every head, rotation of the video's, text and video joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["qk_norm_rope", "rotated"]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (even, odd) of `(B, N, S, D)` by tables `(S, D)`, in float32 (Su et al., "RoFormer", 2021)."""
    wide = x if x.dtype.itemsize > 4 else x.float()
    even, odd = wide.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (wide * cos + turned * sin).to(x.dtype)


def _heads(x: Tensor, norm: Sequence[Tensor], eps: float) -> Tensor:
    return F.layer_norm(x.transpose(1, 2), (x.shape[-1],), norm[0], norm[1], eps)


def qk_norm_rope(
    text: Sequence[Tensor],
    video: Sequence[Tensor],
    text_norms: Sequence[Tensor],
    video_norms: Sequence[Tensor],
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of both streams to joint ones; see `easyanimate_core.kernels.qk_norm_rope.qk_norm_rope`."""
    joint = []
    for i in range(2):
        said = _heads(text[i], text_norms[2 * i : 2 * i + 2], eps)
        seen = rotated(_heads(video[i], video_norms[2 * i : 2 * i + 2], eps), cos, sin)
        joint.append(torch.cat([said, seen], dim=2))
    value = torch.cat([text[2].transpose(1, 2), video[2].transpose(1, 2)], dim=2)
    return joint[0], joint[1], value
