"""The definition of attention: torch's own scaled dot-product attention, on any device, differentiable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import AttentionCall

__all__ = ["Sdpa"]


class Sdpa:
    """softmax(q·kᵀ·scale + mask)·v by `torch.nn.functional.scaled_dot_product_attention`."""

    def supports(self, call: AttentionCall) -> None:
        """Always `None`: every call can run."""
        return None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`.

        Args:
            q: queries.
            k: keys; their length may differ from the queries'.
            v: values, as long as the keys.
            mask: broadcastable to `(B, N, L, L_k)`; boolean (true = attend) or added to the logits.
            scale: of the logits; `1/√D` when `None`.
        """
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
