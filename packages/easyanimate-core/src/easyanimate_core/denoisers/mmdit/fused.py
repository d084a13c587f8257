"""Where a block meets the kernels: one narrow function for each.

On a CPU, and wherever gradients are wanted, modules are called one after the other. On a GPU the same weights go to one
kernel, provided that nobody has wrapped the modules: an offload hook or an adapter must see its module called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easyanimate_core.denoisers.rotary import apply_rotary
from easyanimate_core.kernels.ada_norm import ada_norm
from easyanimate_core.kernels.gate_residual_norm import gate_residual_norm
from easyanimate_core.kernels.op import fusing
from easyanimate_core.kernels.qk_norm_rope import qk_norm_rope

if TYPE_CHECKING:
    from easyanimate_core.denoisers.mmdit.block import Projections

__all__ = ["add_gated", "add_gated_and_modulate", "feed_forward", "joint_heads", "modulate"]

_KINDS = (torch.float32, torch.float16, torch.bfloat16)


def _bare(module: nn.Module, x: Tensor) -> bool:
    """Whether a module's weights may be read instead of calling it: nobody hooked it, and they are where `x` is."""
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return False
    return all(p is None or (p.device == x.device and p.dtype in _KINDS) for p in module._parameters.values())


def modulate(norm: nn.Module, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`norm(x)·(1 + scale) + shift` for `x (B, S, D)` and vectors `(B, 1, D)`; `norm` is a layer norm."""
    if fusing(x) and _bare(norm, x):
        return ada_norm(x, *_affine(norm), scale, shift, _eps(norm))
    y: Tensor = norm(x)
    # Nobody else holds what a norm has just made: it is changed in place, which gives the same bits sooner.
    return y * (1 + scale) + shift if torch.is_grad_enabled() else y.mul_(1 + scale).add_(shift)


def add_gated_and_modulate(
    norm: nn.Module, x: Tensor, y: Tensor, gate: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """`r = x + gate·y`, and `modulate` of it."""
    if fusing(x) and _bare(norm, x):
        return gate_residual_norm(x, y, gate, *_affine(norm), scale, shift, _eps(norm))
    x = add_gated(x, y, gate)
    return x, modulate(norm, x, scale, shift)


def add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """`x + gate·y`; on a GPU in one pass, rounded once. Without gradients `y` is given away."""
    if fusing(x):
        return torch.addcmul(x, gate, y)
    return x + gate * y if torch.is_grad_enabled() else y.mul_(gate).add_(x)


def joint_heads(
    text: tuple[Projections, Tensor], video: tuple[Projections, Tensor], rotary: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of [text, video], `(B, N, L + S, head_dim)` each.

    Args:
        text: projections and states `(B, L, D)`.
        video: the same, `(B, S, D)`.
        rotary: cos and sin `(S, head_dim)` that turn the video's heads.
    """
    (text_side, text_states), (video_side, states) = text, video
    norms = [text_side.norm_q, text_side.norm_k, video_side.norm_q, video_side.norm_k]
    if fusing(states) and all(_bare(norm, states) and norm.elementwise_affine for norm in norms):
        weights = [p for norm in norms for p in (norm.weight, norm.bias)]
        streams = text_side.heads_of(text_states), video_side.heads_of(states)
        return qk_norm_rope(*streams, weights[:4], weights[4:], *rotary, video_side.norm_q.eps)
    q, k, v = video_side.qkv(states)
    text_q, text_k, text_v = text_side.qkv(text_states)
    turn = apply_rotary if torch.is_grad_enabled() or q.device.type != "cpu" else _turned
    q, k = turn(q, *rotary), turn(k, *rotary)
    return torch.cat([text_q, q], dim=2), torch.cat([text_k, k], dim=2), torch.cat([text_v, v], dim=2)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As `apply_rotary`, as a product of complex numbers: the same bits in one pass instead of five."""
    pairs = torch.view_as_complex(x.float().contiguous().unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * torch.complex(cos[:, ::2], sin[:, ::2])).flatten(-2)
    return turned.to(x.dtype)


def feed_forward(module: nn.Module, x: Tensor) -> Tensor:
    """A feed-forward of diffusers' kind; on a GPU its tanh-GELU is the epilogue of the first product."""
    net = getattr(module, "net", None)
    layers: list[Any] = list(net) if isinstance(net, nn.ModuleList) else [None]
    first = layers[0]
    linear = getattr(first, "proj", None)
    tanh = getattr(first, "approximate", None) == "tanh"
    # torch's own CPU path of this call computes another GELU, so it is for CUDA alone.
    if x.is_cuda and fusing(x) and tanh and type(linear) is nn.Linear and _bare(linear, x) and _bare(module, x):
        assert linear is not None
        if linear.bias is not None and linear.weight.dtype == x.dtype:
            flat = torch._addmm_activation(linear.bias, x.flatten(0, -2), linear.weight.t(), use_gelu=True)
            y: Tensor = flat.unflatten(0, x.shape[:-1])
            for layer in layers[1:]:
                y = layer(y)
            return y
    out: Tensor = module(x)
    return out


def _affine(norm: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    return norm._parameters.get("weight"), norm._parameters.get("bias")


def _eps(norm: nn.Module) -> float:
    return float(getattr(norm, "eps"))  # noqa: B009  (typed access to an attribute of nn.Module)
