"""Group norm with the statistics of each frame alone, then SiLU: the entrance of every convolution of the VAE."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from easyanimate_core.kernels.group_norm_silu import reference as _definition
from easyanimate_core.kernels.op import Op

__all__ = ["OP", "group_norm_silu"]


def _fake(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _misfit(x: Tensor, *_: object) -> str | None:
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it takes float32, float16 and bfloat16, not {x.dtype}"
    # Another layout has its own kernels in cuDNN, which a copy to this one would cost.
    if x.stride(-2) != x.shape[-1] * x.stride(-1):
        return "rows of pixels do not follow each other"
    return None if x.is_contiguous() else "it takes contiguous (B, C, T, H, W)"


OP: Final = Op(
    "group_norm_silu",
    "(Tensor x, Tensor weight, Tensor bias, int groups, float eps, bool silu) -> Tensor",
    _definition.group_norm_silu,
    fake=_fake,
    kernel="easyanimate_core.kernels.group_norm_silu.triton:group_norm_silu",
    misfit=_misfit,
)
"""`torch.ops.easyanimate.group_norm_silu`."""


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float = 1e-6, silu: bool = True
) -> Tensor:
    """`silu(GN(x))` with statistics over a group's channels and one frame's pixels (Wu and He, "Group Normalization",
    2018), so that results do not depend on how time is cut.

    Args:
        x: `(B, C, T, H, W)`.
        weight: `(C,)`.
        bias: `(C,)`.
        groups: divides `C`.
        eps: added to the variance.
        silu: whether the activation follows.

    Returns:
        The same shape and type. Statistics are in float32 and merged by Chan's formula, so a large mean does not hurt.
    """
    y: Tensor = OP(x, weight, bias, groups, eps, silu)
    return y
