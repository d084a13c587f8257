"""Products with weights of linear layers: as the layers themselves, or by something faster where that may be.

Weights are read instead of calling their modules only where nobody has wrapped those: an adapter or an offload hook
always sees its module called.

On a CPU without gradients, float32 products go to oneDNN by name. torch asks another library, which on some processors
is half as fast. Results differ by rounding at most; of small layers they are the same bits. (oneDNN would
compute the GELU along with its product, but by a formula of its own, which the recorded cases notice.)
"""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from easyanimate_core.kernels.op import onednn
from easyanimate_core.kernels.scaled_linear.reference import restored

__all__ = ["MANY", "Weights", "feed_forward", "layers_of", "linear", "readable", "tanh_gelu", "watched", "wrapped"]

MANY: Final = 4096
"""Rows of a product that keep any GPU busy: what has twice as many may be cut in two."""

_CACHED: Final = 256

Weights = tuple[Tensor, Tensor | None]
"""A linear layer's weight and bias."""


def wrapped(module: nn.Module) -> bool:
    """Whether somebody wants to see this module called."""
    return "forward" in vars(module) or bool(module._forward_hooks) or bool(module._forward_pre_hooks)


def watched(module: nn.Module) -> bool:
    """Whether somebody may have kept what this module, or a part of it, has just made."""
    return any(map(wrapped, module.modules()))


def readable(layer: nn.Module | None, x: Tensor) -> Weights | None:
    """A linear layer's weight and bias in the type of `x`, where they may be read instead of calling it."""
    if not isinstance(layer, nn.Linear) or wrapped(layer) or layer.weight.device != x.device:
        return None
    weight, bias = layer.weight, layer.bias
    if "weight_scale" in layer._buffers:
        # Kept in one byte each; few rows are better off with the kernel that reads bytes.
        if x.shape[:-1].numel() < MANY:
            return None
        return restored(weight, layer._buffers["weight_scale"], x), None if bias is None else bias.to(x.dtype)
    plain = type(layer) is nn.Linear and type(weight) is nn.Parameter
    return (weight, bias) if plain and all(p is None or p.dtype == x.dtype for p in (weight, bias)) else None


def layers_of(module: nn.Module, x: Tensor) -> tuple[Weights, Weights] | None:
    """Both layers of a feed-forward of diffusers' kind with a tanh-GELU between them, if they may be read."""
    net: Any = getattr(module, "net", None)
    if not isinstance(net, nn.ModuleList) or len(net) < 3 or wrapped(module) or any(map(wrapped, net)):
        return None
    if getattr(net[0], "approximate", None) != "tanh" or any(m.training and m.p for m in (net[1], *net[3:])):
        return None
    first, second = readable(getattr(net[0], "proj", None), x), readable(net[2], x)
    return None if first is None or second is None else (first, second)


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)`."""
    if _by_name(x) and (weights := readable(layer, x)) is not None:
        return _onednn(x, weights)
    y: Tensor = layer(x)
    return y


def feed_forward(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x)` of a feed-forward."""
    if _by_name(x) and (layers := layers_of(module, x)) is not None:
        # So many rows at a time that what lives between the products stays in the processor's cache.
        parts = [_fed(part, *layers) for part in x.flatten(0, -2).split(_CACHED)]
        return torch.cat(parts).view(x.shape)
    y: Tensor = module(x)
    return y


def _fed(x: Tensor, first: Weights, second: Weights) -> Tensor:
    inside = _onednn(x, first)
    torch.ops.aten.gelu_(inside, approximate="tanh")
    return _onednn(inside, second)


def tanh_gelu(x: Tensor, weights: Weights) -> Tensor:
    """GELU of the product of a matrix, by its tanh formula, as the product's epilogue where there is one."""
    weight, bias = weights
    if bias is not None and x.device.type != "cpu":  # torch's CPU path of this call is the other GELU
        return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def _by_name(x: Tensor) -> bool:
    # The call has no gradient.
    return not torch.is_grad_enabled() and onednn(x) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn(x: Tensor, weights: Weights) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, *weights, "none", [], "")
    return y
