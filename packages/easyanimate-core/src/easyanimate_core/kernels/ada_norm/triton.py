"""One program per token: read the row once, write it once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["ada_norm", "modulated", "per_sample", "warps_for"]


@triton.jit
def modulated(
    row, weight, bias, scale, shift, columns, inside, width, eps, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """`LN(row)·(1 + scale) + shift` of a float32 row; columns outside are anything."""
    mean = tl.sum(row, 0) / width
    centred = tl.where(inside, row - mean, 0.0)
    y = centred * (1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps))
    if HAS_WEIGHT:
        y = y * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        y = y + tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0 + tl.load(scale + columns, mask=inside, other=0.0).to(tl.float32)
    return y * factor + tl.load(shift + columns, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _kernel(
    x, weight, bias, scale, shift, out,
    tokens, width, scale_stride, shift_stride, eps,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    sample = token // tokens
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    row = tl.load(x + token * width + columns, mask=inside, other=0.0).to(tl.float32)
    y = modulated(
        row, weight, bias, scale + sample * scale_stride, shift + sample * shift_stride,
        columns, inside, width, eps, HAS_WEIGHT, HAS_BIAS,
    )  # fmt: skip
    tl.store(out + token * width + columns, y.to(out.dtype.element_ty), mask=inside)


def per_sample(vector: Tensor, batch: int) -> Tensor:
    """`(B or 1, 1, D)` as `(B, D)` with contiguous rows; the stride over samples is 0 where they share one."""
    rows = vector.reshape(vector.shape[0], vector.shape[-1])
    rows = rows if rows.stride(-1) == 1 else rows.contiguous()
    return rows.expand(batch, -1)


def warps_for(block: int) -> int:
    """Warps of a program whose row has `block` columns: 8 to 16 values per thread."""
    return min(max(block // 512, 1), 16)


def ada_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Launches the kernel; see `easyanimate_core.kernels.ada_norm.ada_norm`."""
    x = x.contiguous()
    batch, tokens, width = x.shape
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    scale, shift = per_sample(scale, batch), per_sample(shift, batch)
    block = triton.next_power_of_2(width)
    _kernel[(batch * tokens,)](
        x, x if weight is None else weight, x if bias is None else bias, scale, shift, out,
        tokens, width, scale.stride(0), shift.stride(0), eps,
        HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, BLOCK=block,
        enable_fp_fusion=True, num_warps=warps_for(block),
    )  # fmt: skip
    return out
