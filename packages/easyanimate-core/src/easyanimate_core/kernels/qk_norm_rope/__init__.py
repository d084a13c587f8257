"""From projections to joint queries, keys and values: norm of every head, rotation, and the layout of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from easyanimate_core.kernels.op import Op
from easyanimate_core.kernels.qk_norm_rope import reference as _definition

__all__ = ["OP", "qk_norm_rope"]


def _grouped(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Six projections, eight norm parameters, two tables and eps, as the definition takes them."""
    return arguments[:3], arguments[3:6], arguments[6:10], arguments[10:14], *arguments[14:]


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    text, video = arguments[0], arguments[3]
    batch, length, heads, dim = video.shape
    shape = (batch, heads, length + text.shape[1], dim)
    return video.new_empty(shape), video.new_empty(shape), video.new_empty(shape)


def _misfit(*arguments: Any) -> str | None:
    q: Tensor = arguments[3]
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it takes float32, float16 and bfloat16, not {q.dtype}"
    return None if q.shape[-1] <= 256 else f"heads of {q.shape[-1]} are wider than 256"


OP: Final = Op(
    "qk_norm_rope",
    "(Tensor text_q, Tensor text_k, Tensor text_v, Tensor q, Tensor k, Tensor v,"
    " Tensor text_q_weight, Tensor text_q_bias, Tensor text_k_weight, Tensor text_k_bias,"
    " Tensor q_weight, Tensor q_bias, Tensor k_weight, Tensor k_bias,"
    " Tensor cos, Tensor sin, float eps) -> (Tensor, Tensor, Tensor)",
    lambda *arguments: _definition.qk_norm_rope(*_grouped(arguments)),
    fake=_fake,
    kernel="easyanimate_core.kernels.qk_norm_rope.triton:qk_norm_rope",
    misfit=_misfit,
)
"""`torch.ops.easyanimate.qk_norm_rope`; its arguments are those of `qk_norm_rope`, flat."""


def qk_norm_rope(
    text: Sequence[Tensor],
    video: Sequence[Tensor],
    text_norms: Sequence[Tensor],
    video_norms: Sequence[Tensor],
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Joint queries, keys and values of [text, video].

    Layer norm of every head's query and key (Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters",
    2023), rotation of the video's pairs (even, odd), in float32.

    Args:
        text: query, key and value of the text, each `(B, L, N, D)`.
        video: the same of the video, each `(B, S, N, D)`.
        text_norms: weight and bias of the query's norm, then of the key's, each `(D,)`.
        video_norms: the same for the video.
        cos: `(S, D)` float32, each frequency twice.
        sin: the same.
        eps: of the norms.

    Returns:
        Query, key and value, each `(B, N, L + S, D)` in the type of the video's query.
    """
    q, k, v = OP(*text, *video, *text_norms, *video_norms, cos, sin, eps)
    return q, k, v
