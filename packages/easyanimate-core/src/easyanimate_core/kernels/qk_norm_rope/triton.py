"""One program per token and sample, all heads at once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["qk_norm_rope"]


@triton.jit
def _affine(y, text_weight, text_bias, weight, bias, is_text, dims, across):
    """A normed tile through the weights of its stream; they are a head wide, so both are read."""
    w = tl.where(is_text, tl.load(text_weight + dims, mask=across, other=0.0), tl.load(weight + dims, mask=across))
    b = tl.where(is_text, tl.load(text_bias + dims, mask=across, other=0.0), tl.load(bias + dims, mask=across))
    return y * w.to(tl.float32) + b.to(tl.float32)


@triton.jit
def _kernel(
    x, text_weight, text_bias, weight, bias, cos, sin, out, samples, text, count, dim, eps,
    HEADS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64)
    token = at // samples
    is_text = token < text
    heads = tl.arange(0, HEADS)[:, None]
    dims = tl.arange(0, DIM)[None, :]
    across = dims < dim
    inside = (heads < count) & across
    row = (at * count + heads) * dim
    tile = tl.load(x + row + dims, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(tile, 1)[:, None] / dim
    centred = tl.where(inside, tile - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 1)[:, None] / dim + eps)
    y = _affine(centred * rstd, text_weight, text_bias, weight, bias, is_text, dims, across)
    # A pair's other half is read again (it is in the cache), so that reads and writes stay in order.
    other = dims ^ 1
    z = tl.load(x + row + other, mask=inside, other=0.0).to(tl.float32)
    z = _affine((z - mean) * rstd, text_weight, text_bias, weight, bias, is_text, other, across)
    sign = tl.where(dims % 2 == 0, -1.0, 1.0)
    turn = (token - text) * dim + dims
    c = tl.load(cos + turn, mask=across & (turn >= 0), other=1.0)
    s = tl.load(sin + turn, mask=across & (turn >= 0), other=0.0)
    y = y * c + sign * z * s
    tl.store(out + row + dims, y.to(out.dtype.element_ty), mask=inside)


def qk_norm_rope(
    x: Tensor,
    text_weight: Tensor,
    text_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> Tensor:
    """Launches the kernel; arguments as `torch.ops.easyanimate.qk_norm_rope` takes them."""
    x = x.contiguous()
    tokens, batch, count, dim = x.shape
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    heads, block = triton.next_power_of_2(count), triton.next_power_of_2(dim)
    _kernel[(tokens * batch,)](
        x, text_weight, text_bias, weight, bias, cos.contiguous(), sin.contiguous(), out,
        batch, tokens - cos.shape[0], count, dim, eps,
        HEADS=heads, DIM=block, enable_fp_fusion=True, num_warps=min(max(heads * block // 1024, 1), 8),
    )  # fmt: skip
    return out
