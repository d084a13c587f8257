"""The request's choice of attention, from its name to the denoiser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_core.errors import KernelUnavailable
from easyanimate_core.interfaces import AttentionCall, UsesAttention
from easyanimate_core.kernels.attention.chosen import ChosenAttention

if TYPE_CHECKING:
    import torch

    from easyanimate_core.interfaces import Denoiser
    from easyanimate_core.request import GenerationRequest

__all__ = ["choose_attention", "use_attention"]

_ANY_HEAD, _ANY_LENGTH = 64, 1


def choose_attention(request: GenerationRequest, device: torch.device, dtype: torch.dtype) -> ChosenAttention:
    """The backend that a request names. Reads no weights; what depends on shapes is checked at the first call.

    Raises:
        KernelUnavailable: it cannot run on this device or in this type at all.
    """
    chosen = ChosenAttention(request.attention.name, request.attention.create())
    chosen.check(AttentionCall(_ANY_HEAD, _ANY_LENGTH, str(dtype).removeprefix("torch."), str(device)))
    return chosen


def use_attention(chosen: ChosenAttention, denoiser: Denoiser) -> ChosenAttention | None:
    """Tell the denoiser; `None` when its attention is its own affair.

    Raises:
        KernelUnavailable: it is, and something else than `auto` was asked for.
    """
    if isinstance(denoiser, UsesAttention):
        denoiser.set_attention(chosen)
        return chosen
    if chosen.name == "auto":
        return None
    raise KernelUnavailable(
        f"the attention '{chosen.name}' cannot run: this model's attention cannot be chosen", "Leave it at 'auto'."
    )
