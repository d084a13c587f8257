"""Backends of the `attention` slot that need a GPU, each with the reason where it cannot run."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from easyanimate_core.kernels.attention.op import ATTENTION_OP, INT8_OP, largest_bound
from easyanimate_core.kernels.attention.options import TritonAttentionOptions
from easyanimate_core.kernels.op import unavailable

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import AttentionCall

__all__ = ["Cudnn", "Flash", "Sage", "TritonAttention", "call_of"]

_HALVES = ("float16", "bfloat16")


def call_of(q: Tensor, mask: Tensor | None) -> AttentionCall:
    """What is asked with queries `(B, N, L, D)`."""
    from easyanimate_core.interfaces import AttentionCall

    dtype = str(q.dtype).removeprefix("torch.")
    return AttentionCall(q.shape[-1], q.shape[-2], dtype, str(q.device), masked=mask is not None)


def _on_gpu(call: AttentionCall, widest: int, *, oldest: tuple[int, int] = (8, 0), masks: bool = False) -> str | None:
    """Why a kernel of half precision cannot take a call; `None` when it can."""
    if not call.device.startswith("cuda") or not torch.cuda.is_available():
        return f"it needs a CUDA device, this is '{call.device}'"
    if (has := torch.cuda.get_device_capability(call.device)) < oldest:
        return f"compute capability {has[0]}.{has[1]} is below {oldest[0]}.{oldest[1]}"
    if call.dtype not in _HALVES:
        return f"it takes float16 and bfloat16, not {call.dtype}"
    if call.head_dim > widest or call.head_dim % 8:
        return f"heads of {call.head_dim} are not a multiple of 8 up to {widest}"
    return "it takes no mask" if call.masked and not masks else None


class Cudnn:
    """cuDNN's fused attention through torch; on Hopper the fastest that torch brings."""

    def supports(self, call: AttentionCall) -> str | None:
        """`None` in half precision on Ampere and later, heads up to 128."""
        if torch.backends.cudnn.is_available() or not call.device.startswith("cuda"):
            return _on_gpu(call, 128, masks=True)
        return "torch has no cuDNN here"

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`."""
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
            return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


class Flash:
    """FlashAttention: version 3 on Hopper or version 2, where those packages are installed, else torch's own copy of
    version 2."""

    def supports(self, call: AttentionCall) -> str | None:
        """`None` in half precision on Ampere and later, heads up to 256, no mask."""
        return _on_gpu(call, 256)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`; `mask` must be `None`."""
        package = _flash_package(torch.cuda.get_device_capability(q.device))
        if package is None:
            with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
                return scaled_dot_product_attention(q, k, v, scale=scale)
        function: Any = import_module(package).flash_attn_func
        out = function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), softmax_scale=scale)
        # Version 3 returns the logarithm of the sums too.
        joint: Tensor = out[0] if isinstance(out, tuple) else out
        return joint.transpose(1, 2)


def _flash_package(capability: tuple[int, int]) -> str | None:
    """`flash_attn_interface` is version 3, for Hopper alone."""
    names = ("flash_attn_interface", "flash_attn") if capability[0] == 9 else ("flash_attn",)
    return next((name for name in names if find_spec(name) is not None), None)


class Sage:
    """SageAttention, where its package is installed: 8-bit products, faster than exact ones and a little off."""

    def supports(self, call: AttentionCall) -> str | None:
        """`None` where `sageattention` is installed, in half precision, heads of 64 or 128, no mask."""
        if find_spec("sageattention") is None:
            return "sageattention is not installed; pip install sageattention"
        if call.head_dim not in (64, 128):
            return f"it takes heads of 64 and 128, not {call.head_dim}"
        return _on_gpu(call, 128)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`; `mask` must be `None`."""
        function: Any = import_module("sageattention").sageattn
        out: Tensor = function(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=scale)
        return out


@dataclass(frozen=True, slots=True)
class TritonAttention:
    """The fused kernel of this SDK: exact, or with queries and keys as bytes.

    Attributes:
        options: which.
        bound: of the logits at the default scale, in nats, if there is one.
    """

    options: TritonAttentionOptions = field(default_factory=TritonAttentionOptions)
    bound: float | None = None

    def supports(self, call: AttentionCall) -> str | None:
        """`None` on Ampere and later (or in Triton's interpreter), heads up to 256, no mask."""
        if (reason := unavailable(call.device)) is not None:
            return reason
        if call.dtype not in (*_HALVES, "float32"):
            return f"it takes float32, float16 and bfloat16, not {call.dtype}"
        if call.head_dim > 256:
            return f"heads of {call.head_dim} are wider than 256"
        return "it takes no mask" if call.masked else None

    def within(self, bound: float) -> TritonAttention:
        """The same for logits that are no larger than this."""
        return TritonAttention(self.options, bound)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`; `mask` must be `None`."""
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        if self.options.qk == "int8":
            rounded: Tensor = INT8_OP.registered(q, k, v, factor)
            return rounded
        usable = self.options.bounded and scale is None and self.bound is not None
        bound = self.bound if usable and self.bound is not None and self.bound <= largest_bound(q.dtype) else None
        out: Tensor = ATTENTION_OP.registered(q, k, v, factor, bound)
        return out
