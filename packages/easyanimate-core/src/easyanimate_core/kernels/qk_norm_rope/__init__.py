"""From projections to queries and keys: norm of every head, and rotation by position."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from easyanimate_core.kernels.op import Op
from easyanimate_core.kernels.qk_norm_rope import reference as _definition

__all__ = ["OP", "qk_norm_rope"]


def _misfit(x: Tensor, *_: Any) -> str | None:
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it takes float32, float16 and bfloat16, not {x.dtype}"
    return None if x.shape[-1] <= 256 else f"heads of {x.shape[-1]} are wider than 256"


OP: Final = Op(
    "qk_norm_rope",
    "(Tensor x, Tensor text_weight, Tensor text_bias, Tensor weight, Tensor bias, Tensor cos, Tensor sin, float eps)"
    " -> Tensor",
    _definition.qk_norm_rope,
    fake=lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format),
    kernel="easyanimate_core.kernels.qk_norm_rope.triton:qk_norm_rope",
    misfit=_misfit,
)
"""`torch.ops.easyanimate.qk_norm_rope`."""


def qk_norm_rope(
    x: Tensor,
    text_norm: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    rotary: tuple[Tensor, Tensor],
    eps: float,
) -> Tensor:
    """Queries or keys of text and video from their projections.

    Layer norm of every head (Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters", 2023), rotation
    of the video's pairs (even, odd), in float32.

    Args:
        x: `(T, B, N, D)`, token by token; text comes before video.
        text_norm: weight and bias for the text, each `(D,)`.
        norm: the same for the video.
        rotary: cos and sin of the video, each `(S, D)` float32 with every frequency twice; the first `T − S` tokens
            are text.
        eps: of the norms.

    Returns:
        `(T, B, N, D)` in the type of `x`.
    """
    y: Tensor = OP(x, *text_norm, *norm, *rotary, eps)
    return y
