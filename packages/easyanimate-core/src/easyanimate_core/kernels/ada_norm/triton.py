"""One program per token and sample: read the row once, write it once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["ada_norm", "modulated", "per_sample", "warps_for"]


@triton.jit
def modulated(
    row, weight, bias, vectors, columns, inside, width, eps, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """`LN(row)·(1 + scale) + shift` of a float32 row; columns outside are anything. `vectors` points at the shift of
    the row's sample and stream, the scale follows."""
    mean = tl.sum(row, 0) / width
    centred = tl.where(inside, row - mean, 0.0)
    y = centred * (1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps))
    if HAS_WEIGHT:
        y = y * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        y = y + tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0 + tl.load(vectors + width + columns, mask=inside, other=0.0).to(tl.float32)
    return y * factor + tl.load(vectors + columns, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _kernel(
    x, weight, bias, vectors, out, samples, text, width, sample_stride, eps,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    here = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    row = tl.load(x + here * width + columns, mask=inside, other=0.0).to(tl.float32)
    # Vectors of the text are three further on.
    own = (here % samples) * sample_stride + tl.where(here // samples < text, 3 * width, 0)
    y = modulated(row, weight, bias, vectors + own, columns, inside, width, eps, HAS_WEIGHT, HAS_BIAS)
    tl.store(out + here * width + columns, y.to(out.dtype.element_ty), mask=inside)


def per_sample(vectors: Tensor, batch: int) -> Tensor:
    """`(B or 1, n, D)` as `(B, n, D)` with contiguous samples; the stride over samples is 0 where they share one."""
    rows = vectors if vectors[0].is_contiguous() else vectors.contiguous()
    return rows.expand(batch, -1, -1)


def warps_for(block: int) -> int:
    """Warps of a program whose row has `block` columns: 8 to 16 values per thread."""
    return min(max(block // 512, 1), 16)


def ada_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, vectors: Tensor, text: int, eps: float) -> Tensor:
    """Launches the kernel; see `easyanimate_core.kernels.ada_norm.ada_norm`."""
    x = x.contiguous()
    tokens, batch, width = x.shape
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    vectors = per_sample(vectors, batch)
    block = triton.next_power_of_2(width)
    _kernel[(tokens * batch,)](
        x, x if weight is None else weight, x if bias is None else bias, vectors, out,
        batch, text, width, vectors.stride(0), eps,
        HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, BLOCK=block,
        enable_fp_fusion=True, num_warps=warps_for(block),
    )  # fmt: skip
    return out
