"""LoRA added into the weights, and taken out again exactly: the original tensors are kept, not recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from easyanimate_core.checkpoints.lora.match import LoraReport, match_lora
from easyanimate_core.errors import CheckpointMismatch

if TYPE_CHECKING:
    from easyanimate_core.checkpoints.lora.file import LoraFile

__all__ = ["FusedLoras", "fuse_loras"]


class FusedLoras:
    """LoRAs inside a module's weights.

    Attributes:
        reports: what found its place, per LoRA.
    """

    def __init__(self, module: nn.Module, originals: dict[str, Tensor], reports: tuple[LoraReport, ...]) -> None:
        self.reports = reports
        self._module = module
        self._originals = originals

    def unfuse(self) -> None:
        """Put the original weights back, bit by bit; a second call does nothing."""
        for path, weight in self._originals.items():
            layer = self._module.get_submodule(path)
            fused = layer.weight
            assert isinstance(fused, Tensor)
            layer.weight = nn.Parameter(weight.to(fused.device), fused.requires_grad)
        self._originals.clear()


def fuse_loras(module: nn.Module, loras: Sequence[tuple[LoraFile, float]], *, role: str = "denoiser") -> FusedLoras:
    """Add LoRAs to a module's weights: `W + Σ weight · alpha / rank · up @ down`, summed in float32.

    Faster at run time than attached ones, and the way to write a model with a LoRA inside. The weights of changed
    layers are kept in main memory for `FusedLoras.unfuse`.

    Args:
        module: a denoiser or text encoder without attached LoRAs.
        loras: files as read, each with its weight.
        role: whose layers to take from the files.

    Raises:
        CheckpointMismatch: a LoRA does not fit, or weights are kept in one byte; nothing has been changed.
    """
    matched = [(*match_lora(file, module, role), weight) for file, weight in loras]
    deltas: dict[str, Tensor] = {}
    for parts, _, weight in matched:
        for path, part in parts.items():
            added = weight * part.delta()
            deltas[path] = deltas[path] + added if path in deltas else added
    originals: dict[str, Tensor] = {}
    for path in deltas:
        _check_type(path, module.get_parameter(f"{path}.weight"))
    for path, delta in deltas.items():
        layer = module.get_submodule(path)
        weight_then = layer.weight
        assert isinstance(weight_then, Tensor)
        originals[path] = weight_then.detach().to("cpu", copy=True)
        with torch.no_grad():
            summed = (weight_then.float() + delta.to(weight_then.device)).to(weight_then.dtype)
        layer.weight = nn.Parameter(summed, weight_then.requires_grad)
    return FusedLoras(module, originals, tuple(report for _, report, _ in matched))


def _check_type(path: str, weight: Tensor) -> None:
    """Refuse weights of one byte: what a LoRA adds is mostly smaller than their steps."""
    if weight.element_size() == 1:
        kept = str(weight.dtype).removeprefix("torch.")
        raise CheckpointMismatch(
            f"a LoRA cannot be fused into '{path}', which is kept as '{kept}'",
            "Attach it (--lora), which keeps its precision, or fuse with --storage native.",
        )
