"""A linear layer whose weight is kept in one byte per number, and layers of other kinds that are widened when called.

Both leave names as they were: a stored component's `state_dict` has the released keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from easyanimate_core.kernels.scaled_linear import quantise, scaled_linear
from easyanimate_core.placing import Keep

__all__ = ["StoredLinear", "in_memory", "keep_narrow", "replace_linears"]


def in_memory(tensor: Tensor) -> Tensor:
    """Leaves a tensor where it is; see `placing.Keep`."""
    return tensor


class StoredLinear(nn.Linear):
    """`y = x · (scale · weight)ᵀ + bias`, with a weight of float8 or int8 and one scale per output.

    Attributes:
        weight: `(out, in)` float8_e4m3fn or int8; takes no gradient.
        weight_scale: `(out,)` float32, or `None` where the weight was cast as it is.
    """

    weight_scale: Tensor | None

    def __init__(
        self,
        linear: nn.Linear,
        dtype: torch.dtype,
        *,
        scaled: bool = True,
        narrow_bias: bool = False,
        keep: Keep = in_memory,
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = linear.weight.detach(), None
        if scaled and weight.is_meta:  # only bytes are wanted
            scale = torch.empty(self.out_features, dtype=torch.float32, device="meta")
        elif scaled:
            weight, scale = quantise(weight, dtype)
        self.weight = nn.Parameter(keep(weight.to(dtype)), requires_grad=False)
        self.register_buffer("weight_scale", scale, persistent=False)
        bias = linear.bias
        if bias is not None and narrow_bias:
            bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
        self.bias = bias
        self.training = linear.training

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        """`(…, in)` to `(…, out)` in the dtype of `input`."""
        y: Tensor = scaled_linear(input, self.weight, self.weight_scale, self.bias)
        return y


def replace_linears(
    module: nn.Module,
    dtype: torch.dtype,
    *,
    scaled: bool = True,
    narrow_bias: bool = False,
    keep: Keep = in_memory,
) -> None:
    """Put a `StoredLinear` in the place of every linear layer below a module, one at a time; `keep` gets its weight.

    A weight that two layers share stays as it is: it would be kept twice.
    """
    uses: dict[int, int] = {}
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and uses[id(child.weight)] == 1:
                setattr(parent, name, StoredLinear(child, dtype, scaled=scaled, narrow_bias=narrow_bias, keep=keep))


def keep_narrow(layer: nn.Module, dtype: torch.dtype, keep: Keep = in_memory) -> None:
    """Keep a layer's own parameters in a narrow type, and widen them while it runs.

    Every call makes wide copies and drops them again; what is kept is never written.
    """
    narrow = {name: p for name, p in layer.named_parameters(recurse=False) if p.is_floating_point()}
    wide = {name: parameter.dtype for name, parameter in narrow.items()}
    for name, parameter in narrow.items():
        layer.register_parameter(name, nn.Parameter(keep(parameter.detach().to(dtype)), requires_grad=False))
    kept: dict[str, nn.Parameter | None] = {}

    def widen(module: nn.Module, given: tuple[Any, ...]) -> None:
        for name, kind in wide.items():
            stored = module._parameters[name]
            assert stored is not None
            kept[name] = stored
            module._parameters[name] = nn.Parameter(stored.to(kind), requires_grad=False)

    def restore(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        while kept:
            name, stored = kept.popitem()
            module._parameters[name] = stored

    layer.register_forward_pre_hook(widen)
    layer.register_forward_hook(restore, always_call=True)
