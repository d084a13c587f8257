"""The released layout: parameter names as our modules have them, so nothing is renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EasyAnimateFormat"]

# Names that only this layout has, one list per kind of denoiser and one for its VAE. The diffusers port calls the
# text branch of attention `attn1.add_q_proj` instead of `attn2.to_q`.
_SIGNATURES = (
    ("proj.weight", "transformer_blocks.0.norm1.linear.weight", "transformer_blocks.0.attn2.to_q.weight"),
    ("encoder.down_blocks.0.convs.0.conv1.weight", "quant_conv.weight"),
)


class EasyAnimateFormat:
    """Recognises components of released EasyAnimate checkpoints by the names of their tensors."""

    def match(self, names: Iterable[str]) -> float | None:
        """1 when the tensors are those of a released denoiser or VAE, `None` when they are not."""
        found = set(names)
        return 1.0 if any(found.issuperset(signature) for signature in _SIGNATURES) else None

    def keymap(self, name: str) -> str | None:
        """The name itself: our modules keep the released names."""
        return name
