"""A linear layer whose weights are kept in one byte each, float8 or int8, and computed with in the input's type."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from easyanimate_core.errors import InvalidOptions
from easyanimate_core.kernels.op import Op
from easyanimate_core.kernels.scaled_linear import reference as _definition

__all__ = ["OP", "quantise", "scaled_linear", "too_old"]

_LARGEST: Final = ((torch.int8, 127.0), (torch.float8_e4m3fn, 448.0))
_MOST_ROWS = 1024
_WIDENS_FLOAT8: Final = (8, 9)


def quantise(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights `(out, in)` as one byte each and a float32 scale `(out,)`: every row's largest value fills the range.

    Args:
        weight: any floating type.
        dtype: `torch.int8` (rounded to nearest, −127…127) or `torch.float8_e4m3fn` (−448…448).

    Raises:
        InvalidOptions: another type.
    """
    largest = next((largest for known, largest in _LARGEST if known == dtype), None)
    if largest is None:
        raise InvalidOptions(f"weights cannot be kept as '{dtype}'", "Choose int8 or float8_e4m3fn.")
    wide = weight.float()
    # A row of zeros needs some scale, and any will do.
    scale = wide.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / largest
    steps = wide / scale[:, None]
    return (steps.round() if dtype == torch.int8 else steps).clamp(-largest, largest).to(dtype), scale


def too_old(stored: torch.dtype, capability: tuple[int, int]) -> str | None:
    """Why a GPU of this compute capability cannot widen such weights in registers; `None` when it can."""
    if stored != torch.float8_e4m3fn or capability >= _WIDENS_FLOAT8:
        return None
    major, minor = capability
    return f"compute capability {major}.{minor} has no float8; it takes {_WIDENS_FLOAT8[0]}.{_WIDENS_FLOAT8[1]}"


def _fake(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _misfit(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> str | None:
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it takes float32, float16 and bfloat16, not {x.dtype}"
    if weight.dtype not in (torch.int8, torch.float8_e4m3fn) or not weight.is_contiguous():
        return f"it takes contiguous int8 or float8_e4m3fn weights, not {weight.dtype}"
    if x.is_cuda and (reason := too_old(weight.dtype, torch.cuda.get_device_capability(x.device))) is not None:
        return reason
    rows = math.prod(x.shape[:-1])
    # With many rows, casting the weights once costs nothing beside the product, for which libraries are faster.
    return None if rows <= _MOST_ROWS else f"{rows} rows are more than {_MOST_ROWS}"


OP: Final = Op(
    "scaled_linear",
    "(Tensor x, Tensor weight, Tensor? scale, Tensor? bias) -> Tensor",
    _definition.scaled_linear,
    fake=_fake,
    kernel="easyanimate_core.kernels.scaled_linear.triton:scaled_linear",
    misfit=_misfit,
)
"""`torch.ops.easyanimate.scaled_linear`."""


def scaled_linear(x: Tensor, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """`x·(stored·scale)ᵀ + bias`.

    Args:
        x: `(…, in)` in the type to compute in.
        weight: `(out, in)`, int8 or float8_e4m3fn.
        scale: float32 `(out,)`, as `quantise` gives it; without it, weights are only cast, as upstream's float8 does.
        bias: `(out,)` in any floating type, or `None`.

    Returns:
        `(…, out)` in the type of `x`. Differentiable in `x` and `bias`. Up to 1024 rows (text, single frames) the
        kernel reads bytes and widens them in registers; with more rows weights are widened in memory first.
    """
    y: Tensor = OP(x, weight, scale, bias)
    return y
