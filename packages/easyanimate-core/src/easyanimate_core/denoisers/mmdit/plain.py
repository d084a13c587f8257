"""A block's parts as modules called one after the other: what runs on a CPU, and wherever gradients are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from easyanimate_core.denoisers.mmdit.products import watched
from easyanimate_core.denoisers.rotary import apply_rotary

if TYPE_CHECKING:
    from easyanimate_core.denoisers.mmdit.block import Projections

__all__ = ["add_gated", "joint_heads", "modulate"]


def modulate(norm: nn.Module, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`norm(x)·(1 + scale) + shift` for `x (B, S, D)` and vectors `(B, 1, D)`; `norm` is a layer norm."""
    y: Tensor = norm(x)
    # Nobody else holds what a norm has just made: it is changed in place, which gives the same bits sooner.
    return y * (1 + scale) + shift if torch.is_grad_enabled() or watched(norm) else y.mul_(1 + scale).add_(shift)


def add_gated(x: Tensor, y: Tensor, gate: Tensor, maker: nn.Module) -> Tensor:
    """`x + gate·y`. Without gradients `y`, which `maker` has just made, is given away."""
    return x + gate * y if torch.is_grad_enabled() or watched(maker) else y.mul_(gate).add_(x)


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
    q, k, v = video_side.qkv(states)
    text_q, text_k, text_v = text_side.qkv(text_states)
    apart = torch.is_grad_enabled() or torch.compiler.is_compiling() or q.device.type != "cpu"
    turn = apply_rotary if apart else _turned
    q, k = turn(q, *rotary), turn(k, *rotary)
    return torch.cat([text_q, q], dim=2), torch.cat([text_k, k], dim=2), torch.cat([text_v, v], dim=2)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As `apply_rotary`, as a product of complex numbers: the same bits in one pass instead of five."""
    pairs = torch.view_as_complex(x.float().contiguous().unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * torch.complex(cos[:, ::2].float(), sin[:, ::2].float())).flatten(-2)
    return turned.to(x.dtype)
