"""One program per token and sample: two rows in, two rows out."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from easyanimate_core.kernels.ada_norm.triton import modulated, per_sample, warps_for

__all__ = ["gate_residual_norm"]


@triton.jit
def _kernel(
    x, y, gates, weight, bias, vectors, residual, out,
    samples, text, width, gates_stride, vectors_stride, eps,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64)
    sample = at % samples
    stream = tl.where(at // samples < text, 3 * width, 0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    here = at * width + columns
    row = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    added = tl.load(y + here, mask=inside, other=0.0).to(tl.float32)
    gate = gates + sample * gates_stride + stream + 2 * width
    factor = tl.load(gate + columns, mask=inside, other=0.0).to(tl.float32)
    kept = (row + factor * added).to(residual.dtype.element_ty)
    tl.store(residual + here, kept, mask=inside)
    normed = modulated(
        kept.to(tl.float32), weight, bias, vectors + sample * vectors_stride + stream,
        columns, inside, width, eps, HAS_WEIGHT, HAS_BIAS,
    )  # fmt: skip
    tl.store(out + here, normed.to(out.dtype.element_ty), mask=inside)


def gate_residual_norm(
    x: Tensor,
    y: Tensor,
    gates: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    vectors: Tensor,
    text: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Launches the kernel; see `easyanimate_core.kernels.gate_residual_norm.gate_residual_norm`."""
    x, y = x.contiguous(), y.contiguous()
    tokens, batch, width = x.shape
    residual, out = torch.empty_like(x), torch.empty_like(x)
    if x.numel() == 0:
        return residual, out
    gates, vectors = per_sample(gates, batch), per_sample(vectors, batch)
    block = triton.next_power_of_2(width)
    _kernel[(tokens * batch,)](
        x, y, gates, x if weight is None else weight, x if bias is None else bias, vectors, residual, out,
        batch, text, width, gates.stride(0), vectors.stride(0), eps,
        HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, BLOCK=block,
        enable_fp_fusion=True, num_warps=warps_for(block),
    )  # fmt: skip
    return residual, out
