"""One program per token: two rows in, two rows out."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from easyanimate_core.kernels.ada_norm.triton import modulated, per_sample, warps_for

__all__ = ["gate_residual_norm"]


@triton.jit
def _kernel(
    x, y, gate, weight, bias, scale, shift, residual, out,
    tokens, width, gate_stride, scale_stride, shift_stride, eps,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    sample = token // tokens
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    here = token * width + columns
    row = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    added = tl.load(y + here, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(gate + sample * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
    kept = (row + factor * added).to(residual.dtype.element_ty)
    tl.store(residual + here, kept, mask=inside)
    normed = modulated(
        kept.to(tl.float32), weight, bias, scale + sample * scale_stride, shift + sample * shift_stride,
        columns, inside, width, eps, HAS_WEIGHT, HAS_BIAS,
    )  # fmt: skip
    tl.store(out + here, normed.to(out.dtype.element_ty), mask=inside)


def gate_residual_norm(
    x: Tensor,
    y: Tensor,
    gate: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Launches the kernel; see `easyanimate_core.kernels.gate_residual_norm.gate_residual_norm`."""
    x, y = x.contiguous(), y.contiguous()
    batch, tokens, width = x.shape
    residual, out = torch.empty_like(x), torch.empty_like(x)
    if x.numel() == 0:
        return residual, out
    gate, scale, shift = (per_sample(vector, batch) for vector in (gate, scale, shift))
    block = triton.next_power_of_2(width)
    _kernel[(batch * tokens,)](
        x, y, gate, x if weight is None else weight, x if bias is None else bias, scale, shift, residual, out,
        tokens, width, gate.stride(0), scale.stride(0), shift.stride(0), eps,
        HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, BLOCK=block,
        enable_fp_fusion=True, num_warps=warps_for(block),
    )  # fmt: skip
    return residual, out
