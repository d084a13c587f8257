"""LoRA at run time: layers are wrapped by peft's, weights stay as they are, and detaching leaves no trace.

`y = layer(x) + weight · alpha / rank · up(down(x))`
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from easyanimate_core.checkpoints.lora.match import LoraReport, match_lora, scaled

if TYPE_CHECKING:
    from easyanimate_core.checkpoints.lora.file import LoraFile, LowRank

__all__ = ["AttachedLora", "attach_lora"]


@dataclass(frozen=True, slots=True)
class AttachedLora:
    """A LoRA that is attached to a module.

    Attributes:
        module: what it is attached to.
        name: of peft's adapter.
        report: what found its place.
    """

    module: nn.Module
    name: str
    report: LoraReport

    def set_weight(self, weight: float) -> None:
        """Multiply what the LoRA adds by `weight`; 1 is as it was trained, 0 switches it off."""
        for _, layer in _wrapped(self.module):
            layer.set_scale(self.name, weight)

    def detach(self) -> None:
        """Take the LoRA away; a layer without another one is the original layer again."""
        for path, layer in list(_wrapped(self.module)):
            if self.name not in layer.lora_A:
                continue
            layer.delete_adapter(self.name)
            if not layer.lora_A:
                parent, _, leaf = path.rpartition(".")
                setattr(self.module.get_submodule(parent), leaf, layer.get_base_layer())


def attach_lora(
    module: nn.Module,
    file: LoraFile,
    weight: float = 1.0,
    *,
    name: str,
    dtype: torch.dtype | None = None,
    role: str = "denoiser",
) -> AttachedLora:
    """Attach a LoRA beside those that are attached already.

    Args:
        module: a denoiser or text encoder; its weights are not touched.
        file: as read.
        weight: multiplies what the LoRA adds.
        name: of peft's adapter, letters, digits and underscores; no other one of the module has it.
        dtype: of the thin matrices; that of the layer they belong to by default.
        role: whose layers to take from the file.

    Raises:
        CheckpointMismatch: none of its layers is in the module, or sizes differ.
    """
    parts, report = match_lora(file, module, role)
    config = LoraConfig(
        r=1,
        lora_alpha=1,
        target_modules="|".join(re.escape(path) for path in parts),
        rank_pattern={re.escape(path): part.rank for path, part in parts.items()},
        alpha_pattern={re.escape(path): alpha for path, alpha in scaled(parts).items()},
        init_lora_weights=False,
        inference_mode=True,
    )
    inject_adapter_in_model(config, module, adapter_name=name, low_cpu_mem_usage=True)
    # Adapters are ours to keep count of; peft would warn at the second one.
    del module.peft_config
    for path, layer in _wrapped(module):
        if path in parts:
            _fill(layer, name, parts[path], dtype)
        layer.set_adapter(list(layer.lora_A))
        for thin in (*layer.lora_A.values(), *layer.lora_B.values()):
            thin.requires_grad_(False)
    attached = AttachedLora(module, name, report)
    attached.set_weight(weight)
    return attached


def _fill(layer: LoraLayer, name: str, part: LowRank, dtype: torch.dtype | None) -> None:
    base = layer.get_base_layer().weight
    for thin, value in ((layer.lora_A[name], part.down), (layer.lora_B[name], part.up)):
        kept = value.to(device=base.device, dtype=dtype or base.dtype, copy=True)
        thin.weight = nn.Parameter(kept, requires_grad=False)


def _wrapped(module: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Layers that peft has wrapped, by the path of the layer that they stand for."""
    return ((path, layer) for path, layer in module.named_modules() if isinstance(layer, LoraLayer))
