"""A tiled product that reads weights as bytes and widens them in registers; scales act on the finished sums."""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["scaled_linear"]


@triton.jit
def _kernel(
    x, weight, scale, bias, out, rows, columns, inner, x_stride,
    HAS_SCALE: tl.constexpr, HAS_BIAS: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_in, column_in = row < rows, column < columns
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inner, INNER):
        k = start + tl.arange(0, INNER)
        k_in = k < inner
        a = tl.load(
            x + row.to(tl.int64)[:, None] * x_stride + k[None, :], mask=row_in[:, None] & k_in[None, :], other=0.0
        )
        stored = tl.load(
            weight + column.to(tl.int64)[None, :] * inner + k[:, None], mask=k_in[:, None] & column_in[None, :]
        )
        # Outside the weights anything may have been read (float8 has no literal zero): `a` is zero there.
        b = tl.where(k_in[:, None] & column_in[None, :], stored.to(tl.float32), 0.0).to(a.dtype)
        total = tl.dot(a, b, total, input_precision="ieee" if EXACT else "tf32")
    if HAS_SCALE:
        total = total * tl.load(scale + column, mask=column_in, other=0.0)[None, :]
    if HAS_BIAS:
        total = total + tl.load(bias + column, mask=column_in, other=0.0).to(tl.float32)[None, :]
    to = out + row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(to, total.to(out.dtype.element_ty), mask=row_in[:, None] & column_in[None, :])


def scaled_linear(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """Launches the kernel; see `easyanimate_core.kernels.scaled_linear.scaled_linear`."""
    columns, inner = weight.shape
    flat = x.reshape(-1, inner)
    flat = flat if flat.stride(-1) == 1 else flat.contiguous()
    out = x.new_empty((*x.shape[:-1], columns))
    rows = math.prod(x.shape[:-1])
    if out.numel() == 0:
        return out
    bias = None if bias is None else bias.to(x.dtype)
    block = 16 if rows <= 16 else 64
    _kernel[(triton.cdiv(rows, block), triton.cdiv(columns, 64))](
        flat, weight, x if scale is None else scale, x if bias is None else bias, out,
        rows, columns, inner, flat.stride(0),
        HAS_SCALE=scale is not None, HAS_BIAS=bias is not None, EXACT=x.dtype.itemsize == 4,
        ROWS=block, COLUMNS=64, INNER=64, enable_fp_fusion=True, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out
