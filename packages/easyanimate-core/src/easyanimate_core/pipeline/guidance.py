"""Classifier-free guidance: one batch for both halves, the unguided one first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from easyanimate_core.data import TextEmbedding

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["combine", "guide", "rescale"]


def combine(negative: Sequence[TextEmbedding], positive: Sequence[TextEmbedding]) -> tuple[TextEmbedding, ...]:
    """Embeddings `(B, L, D)` of both halves as `(2·B, L, D)`, per text encoder, unguided half first."""
    return tuple(
        TextEmbedding(torch.cat([n.states, p.states]), torch.cat([n.mask, p.mask]))
        for n, p in zip(negative, positive, strict=True)
    )


def guide(prediction: Tensor, scale: float, *, rescaled: float = 0.0) -> Tensor:
    """`u + scale·(c − u)` of a prediction `(2·B, C, f, h, w)` whose first half is u.

    Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022), section 3.

    Args:
        prediction: both halves.
        scale: guidance scale; 1 gives c.
        rescaled: share, 0 … 1, of the correction of `rescale`.
    """
    unguided, conditional = prediction.chunk(2)
    guided = unguided + scale * (conditional - unguided)
    return rescale(guided, conditional, rescaled) if rescaled > 0.0 else guided


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Bring back the contrast that strong guidance distorts: match each sample's standard deviation.

    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023), section 3.4.

    Args:
        guided: `(B, …)`.
        conditional: the prediction for the prompt alone, the same shape.
        share: 0 keeps `guided`, 1 matches the deviation fully.
    """
    dims = tuple(range(1, guided.ndim))
    matched = guided * (conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True))
    return share * matched + (1 - share) * guided
