"""Flash attention over [text, video]: queries stay in registers, keys and values stream past (Dao, "FlashAttention-2",
2023).

Three ways through the softmax. *Online* keeps a running maximum and rescales. *Bounded* needs neither: where the
logits' size is bounded beforehand (both norms of queries and keys bound it, and rotation keeps lengths), subtracting
the bound gives the same quotient with fewer instructions; at head dim 64 those are what a GPU waits for.
*int8* multiplies queries and keys as bytes, each token with its own scale, after the keys' mean is taken away, which a
softmax does not notice (Zhang et al., "SageAttention", 2024).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from easyanimate_core.kernels.attention.reference import as_bytes, laid_out_as

__all__ = ["attention", "int8_attention"]

_LOG2_E = math.log2(math.e)


@triton.jit
def _kernel(
    q, k, v, q_scale, k_scale, out, length, keys, dim, factor, shift,
    q_sample, q_head, q_token, k_sample, k_head, k_token, v_sample, v_head, v_token,
    out_sample, out_head, out_token, heads,
    BOUNDED: tl.constexpr, BYTES: tl.constexpr, EXACT: tl.constexpr, EVEN: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """`factor` turns a product into an exponent of 2; `shift` is the bound, as such an exponent."""
    both = tl.program_id(1).to(tl.int64)
    sample, head = both // heads, both % heads
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    row_in, dim_in = rows < length, dims < dim
    q_at = q + sample * q_sample + head * q_head + rows.to(tl.int64)[:, None] * q_token + dims[None, :]
    query = tl.load(q_at, mask=row_in[:, None] & dim_in[None, :], other=0)
    if BYTES:
        q_factor = tl.load(q_scale + both * length + rows, mask=row_in, other=0.0) * factor
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    gathered = tl.zeros((ROWS, DIM), tl.float32)
    k_base = k + sample * k_sample + head * k_head
    v_base = v + sample * v_sample + head * v_head
    for start in range(0, keys, KEYS):
        column = start + tl.arange(0, KEYS)
        column_in = column < keys
        at = column.to(tl.int64)
        key = tl.load(
            k_base + at[None, :] * k_token + dims[:, None], mask=column_in[None, :] & dim_in[:, None], other=0
        )
        if BYTES:
            logits = tl.dot(query, key).to(tl.float32)
            logits = (
                logits * q_factor[:, None] * tl.load(k_scale + both * keys + at, mask=column_in, other=0.0)[None, :]
            )
        else:
            logits = tl.dot(query, key, input_precision="ieee" if EXACT else "tf32") * factor
        if not EVEN:
            logits = tl.where(column_in[None, :], logits, float("-inf"))
        if BOUNDED:
            share = tl.exp2(logits - shift)
        else:
            new = tl.maximum(best, tl.max(logits, 1))
            share = tl.exp2(logits - new[:, None])
            shrink = tl.exp2(best - new)
            total = total * shrink
            gathered = gathered * shrink[:, None]
            best = new
        total = total + tl.sum(share, 1)
        value = tl.load(
            v_base + at[:, None] * v_token + dims[None, :], mask=column_in[:, None] & dim_in[None, :], other=0.0
        )
        gathered = tl.dot(share.to(value.dtype), value, gathered, input_precision="ieee" if EXACT else "tf32")
    to = out + sample * out_sample + head * out_head + rows.to(tl.int64)[:, None] * out_token + dims[None, :]
    result = gathered / total[:, None]
    tl.store(to, result.to(out.dtype.element_ty), mask=row_in[:, None] & dim_in[None, :])


def _launch(
    q: Tensor, k: Tensor, v: Tensor, scales: tuple[Tensor, Tensor] | None, factor: float, shift: float | None
) -> Tensor:
    out = laid_out_as(q, v.dtype)
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    batch, heads, length, dim = q.shape
    if out.numel() == 0:
        return out
    block = max(triton.next_power_of_2(dim), 32 if scales is not None else 16)
    wide = v.dtype.itemsize == 4
    rows, keys = (64, 32) if wide or block > 128 else (128, 64)
    rows = min(rows, max(triton.next_power_of_2(length), 16))
    q_scale, k_scale = (scale.contiguous() for scale in scales) if scales is not None else (q, q)
    _kernel[(triton.cdiv(length, rows), batch * heads)](
        q, k, v, q_scale, k_scale, out, length, k.shape[2], dim, factor, 0.0 if shift is None else shift,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], heads,
        BOUNDED=shift is not None, BYTES=scales is not None, EXACT=wide, EVEN=k.shape[2] % keys == 0,
        ROWS=rows, KEYS=keys, DIM=block,
        enable_fp_fusion=True, num_warps=4 if block <= 64 else 8, num_stages=3 if block <= 64 else 2,
    )  # fmt: skip
    return out


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bound: float | None) -> Tensor:
    """Launches the kernel; see `easyanimate_core.kernels.attention.op.attention`."""
    factor = scale * _LOG2_E
    if bound is None:
        return _launch(q, k, v, None, factor, None)
    # float16 ends at 65504 = e^11.09: let shares rise to e^11 there, or small ones would vanish.
    shift = bound - 11.0 if v.dtype == torch.float16 else bound
    return _launch(q, k, v, None, factor, shift * _LOG2_E)


def int8_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Launches the kernel on bytes; see `easyanimate_core.kernels.attention.op.int8_attention`."""
    (q_bytes, q_scale), (k_bytes, k_scale) = as_bytes(q), as_bytes(k.float() - k.float().mean(2, keepdim=True))
    return _launch(q_bytes, k_bytes, v, (q_scale, k_scale), scale * _LOG2_E, None)
