"""One program per token, all heads at once; text and video write into the same buffers, so nothing is joined later."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["qk_norm_rope"]


@triton.jit
def _normed(source, weight, bias, cos, sin, heads, dims, stride, inside, dim, eps, TURN: tl.constexpr):
    """A norm over each head's row of a tile `(heads, dims)`, rotated if asked, in float32."""
    here = source + heads * stride + dims
    x = tl.load(here, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, 1)[:, None] / dim
    centred = tl.where(inside, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 1)[:, None] / dim + eps)
    across = dims < dim
    w = tl.load(weight + dims, mask=across, other=0.0).to(tl.float32)
    b = tl.load(bias + dims, mask=across, other=0.0).to(tl.float32)
    y = centred * rstd * w + b
    if TURN:
        # A pair's other half is read again (it is in the cache), so that reads and writes stay in order.
        other = dims ^ 1
        z = tl.load(source + heads * stride + other, mask=inside, other=0.0).to(tl.float32)
        w = tl.load(weight + other, mask=across, other=0.0).to(tl.float32)
        b = tl.load(bias + other, mask=across, other=0.0).to(tl.float32)
        z = (z - mean) * rstd * w + b
        sign = tl.where(dims % 2 == 0, -1.0, 1.0)
        c = tl.load(cos + dims, mask=across, other=0.0)
        s = tl.load(sin + dims, mask=across, other=0.0)
        y = y * c + sign * z * s
    return y


@triton.jit
def _kernel(
    q, k, v, q_weight, q_bias, k_weight, k_bias, cos, sin, q_out, k_out, v_out,
    tokens, joint, offset, count, dim, eps,
    q_sample, q_token, q_head, k_sample, k_token, k_head, v_sample, v_token, v_head,
    TURN: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0).to(tl.int64) // tokens
    token = tl.program_id(0).to(tl.int64) % tokens
    heads = tl.arange(0, HEADS)[:, None]
    dims = tl.arange(0, DIM)[None, :]
    inside = (heads < count) & (dims < dim)
    to = ((sample * count + heads) * joint + offset + token) * dim + dims
    turn = token * dim
    source = q + sample * q_sample + token * q_token
    y = _normed(source, q_weight, q_bias, cos + turn, sin + turn, heads, dims, q_head, inside, dim, eps, TURN)
    tl.store(q_out + to, y.to(q_out.dtype.element_ty), mask=inside)
    source = k + sample * k_sample + token * k_token
    y = _normed(source, k_weight, k_bias, cos + turn, sin + turn, heads, dims, k_head, inside, dim, eps, TURN)
    tl.store(k_out + to, y.to(k_out.dtype.element_ty), mask=inside)
    value = tl.load(v + sample * v_sample + token * v_token + heads * v_head + dims, mask=inside, other=0.0)
    tl.store(v_out + to, value.to(v_out.dtype.element_ty), mask=inside)


def _launch(
    stream: Sequence[Tensor],
    norms: Sequence[Tensor],
    tables: tuple[Tensor, Tensor],
    out: Sequence[Tensor],
    offset: int,
    eps: float,
    turn: bool,
) -> None:
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in stream)
    batch, tokens, count, dim = q.shape
    if q.numel() == 0:
        return
    heads, block = triton.next_power_of_2(count), triton.next_power_of_2(dim)
    _kernel[(batch * tokens,)](
        q, k, v, *norms, *tables, *out, tokens, out[0].shape[2], offset, count, dim, eps,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        TURN=turn, HEADS=heads, DIM=block, enable_fp_fusion=True, num_warps=min(max(heads * block // 1024, 1), 8),
    )  # fmt: skip


def qk_norm_rope(*arguments: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Launches the kernel once for each stream; arguments as `torch.ops.easyanimate.qk_norm_rope` takes them."""
    *tensors, eps = arguments
    given: list[Tensor] = [t for t in tensors if isinstance(t, Tensor)]
    text, video, text_norms, video_norms = given[:3], given[3:6], given[6:10], given[10:14]
    tables = given[14].contiguous(), given[15].contiguous()
    batch, length, heads, dim = video[0].shape
    shape = (batch, heads, text[0].shape[1] + length, dim)
    out = tuple(video[0].new_empty(shape) for _ in range(3))
    _launch(text, text_norms, tables, out, 0, float(eps), turn=False)
    _launch(video, video_norms, tables, out, text[0].shape[1], float(eps), turn=True)
    return out[0], out[1], out[2]
