"""Options of attention backends."""

from __future__ import annotations

from typing import Literal

from easyanimate_core.schema import Model

__all__ = ["TritonAttentionOptions"]


class TritonAttentionOptions(Model):
    """The fused kernel of this SDK."""

    qk: Literal["exact", "int8"] = "exact"
    """Products of queries and keys: exact, or of bytes: faster on Ampere and Ada, about one per cent off."""

    bounded: bool = True
    """Leave out the running maximum where the norms of queries and keys bound the logits. Exact within rounding."""
