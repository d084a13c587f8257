"""Two passes: partial statistics of every group, then norm and activation. Groups are split, so that the 32 groups of
one large frame keep a whole GPU busy."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["group_norm_silu"]

_BLOCK = 2048
_MOST_PARTS = 128


@triton.jit
def _statistics(
    x, partial, pixels, channels, frames, groups, parts, span, SIZE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Count, mean and sum of squared deviations of one part of one group of one frame.

    All relative to the group's first value: what its values have in common then costs no digits.
    """
    which = tl.program_id(0)
    part = tl.program_id(1)
    frame, group = which // groups, which % groups
    sample, time = (frame // frames).to(tl.int64), frame % frames
    base = ((sample * channels + group * SIZE) * frames + time) * pixels
    stop = tl.minimum((part + 1) * span, SIZE * pixels)
    first = tl.load(x + base).to(tl.float32)
    count = 0.0
    mean = 0.0
    squares = 0.0
    for start in range(part * span, stop, BLOCK):
        flat = start + tl.arange(0, BLOCK)
        inside = flat < stop
        at = base + (flat // pixels).to(tl.int64) * frames * pixels + flat % pixels
        values = tl.where(inside, tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - first, 0.0)
        here = tl.sum(inside.to(tl.float32), 0)
        own = tl.sum(values, 0) / here
        deviation = tl.where(inside, values - own, 0.0)
        apart = own - mean
        both = count + here
        squares = squares + tl.sum(deviation * deviation, 0) + apart * apart * count * here / both
        mean = mean + apart * here / both
        count = both
    to = partial + (which.to(tl.int64) * parts + part) * 3
    tl.store(to, count)
    tl.store(to + 1, mean)
    tl.store(to + 2, squares)


@triton.jit
def _normalise(
    x, weight, bias, partial, out, pixels, channels, frames, groups, parts, eps,
    SIZE: tl.constexpr, PARTS: tl.constexpr, SILU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One run of pixels of one channel of one frame."""
    which = tl.program_id(0)
    frame, channel = which // channels, which % channels
    sample, time = (frame // frames).to(tl.int64), frame % frames
    group = frame * groups + channel // SIZE
    base = ((sample * channels + channel // SIZE * SIZE) * frames + time) * pixels
    first = tl.load(x + base).to(tl.float32)
    index = tl.arange(0, PARTS)
    there = index < parts
    row = partial + (group.to(tl.int64) * parts + index) * 3
    count = tl.load(row, mask=there, other=0.0)
    means = tl.load(row + 1, mask=there, other=0.0)
    squares = tl.load(row + 2, mask=there, other=0.0)
    total = tl.sum(count, 0)
    mean = tl.sum(count * means, 0) / total
    variance = (tl.sum(squares, 0) + tl.sum(count * (means - mean) * (means - mean), 0)) / total
    factor = tl.load(weight + channel).to(tl.float32) / tl.sqrt(variance + eps)
    offset = tl.load(bias + channel).to(tl.float32)
    flat = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = flat < pixels
    at = ((sample * channels + channel) * frames + time) * pixels + flat
    y = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - first - mean) * factor + offset
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


def group_norm_silu(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
    """Launches both passes; see `easyanimate_core.kernels.group_norm_silu.group_norm_silu`."""
    batch, channels, frames, height, width = x.shape
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    pixels, size = height * width, channels // groups
    parts = min(triton.cdiv(size * pixels, 4 * _BLOCK), _MOST_PARTS)
    # Parts are whole blocks, so that none is empty and no block crosses two of them.
    span = triton.cdiv(triton.cdiv(size * pixels, parts), _BLOCK) * _BLOCK
    parts = triton.cdiv(size * pixels, span)
    partial = torch.empty((batch * frames * groups, parts, 3), dtype=torch.float32, device=x.device)
    _statistics[(batch * frames * groups, parts)](
        x,
        partial,
        pixels,
        channels,
        frames,
        groups,
        parts,
        span,
        SIZE=size,
        BLOCK=_BLOCK,
        enable_fp_fusion=True,
        num_warps=8,
    )
    _normalise[(batch * frames * channels, triton.cdiv(pixels, _BLOCK))](
        x, weight, bias, partial, out, pixels, channels, frames, groups, parts, eps,
        SIZE=size, PARTS=triton.next_power_of_2(parts), SILU=silu, BLOCK=_BLOCK, enable_fp_fusion=True, num_warps=8,
    )  # fmt: skip
    return out
