"""The LoRAs of a pipeline: from one request to the next only what differs is attached or detached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from easyanimate_core.checkpoints.lora.attach import AttachedLora, attach_lora
from easyanimate_core.checkpoints.lora.file import LoraFile, read_lora
from easyanimate_core.errors import CheckpointMismatch

if TYPE_CHECKING:
    import torch

__all__ = ["LoraStack"]


class LoraStack:
    """LoRAs attached to a pipeline's modules, in the order in which they were asked for."""

    def __init__(self, modules: Mapping[str, nn.Module], dtype: torch.dtype | None = None) -> None:
        self._modules = dict(modules)
        self._dtype = dtype
        self._attached: dict[Path, tuple[AttachedLora, ...]] = {}
        self._count = 0

    @property
    def paths(self) -> tuple[Path, ...]:
        """What is attached now."""
        return tuple(self._attached)

    def use(self, wanted: Sequence[tuple[str | Path, float]], say: Callable[[str, bool], None]) -> None:
        """Attach these LoRAs with their weights, and detach all others.

        Args:
            wanted: path and weight of each; a path that is named twice gets the sum of its weights.
            say: hears one sentence per LoRA that is attached now, and whether a part of it found no place.

        Raises:
            CheckpointError: a file cannot be used; what was attached before stays attached.
        """
        weights: dict[Path, float] = {}
        for path, weight in wanted:
            place = Path(path).expanduser()
            weights[place] = weights.get(place, 0.0) + weight
        new: dict[Path, tuple[AttachedLora, ...]] = {}
        try:
            for place in weights:
                if place not in self._attached:
                    new[place] = self._attach(place, say)
        except BaseException:
            for attached in new.values():
                for lora in attached:
                    lora.detach()
            raise
        for place in [place for place in self._attached if place not in weights]:
            for lora in self._attached.pop(place):
                lora.detach()
        self._attached.update(new)
        for place, weight in weights.items():
            for lora in self._attached[place]:
                lora.set_weight(weight)

    def _attach(self, path: Path, say: Callable[[str, bool], None]) -> tuple[AttachedLora, ...]:
        file = read_lora(path)
        held = {role for role, _ in file.layers}
        # A LoRA that is for none of the modules is tried on the denoiser, which says why it does not fit.
        roles = [role for role in self._modules if role in held] or ["denoiser"]
        attached: list[AttachedLora] = []
        try:
            for role in roles:
                self._count += 1
                lora = self._attach_to(role, file)
                if lora is not None:
                    attached.append(lora)
        except BaseException:
            for lora in attached:
                lora.detach()
            raise
        applied, report = sum(lora.report.applied for lora in attached), attached[0].report
        complete = applied == report.total
        counted = f"LoRA '{path.name}' ({file.layout}): {applied} of {report.total} layers applied"
        say(str(report) if len(attached) == 1 else counted, complete)
        return tuple(attached)

    def _attach_to(self, role: str, file: LoraFile) -> AttachedLora | None:
        """The part of a LoRA for one module; `None` when it is the lesser part, for another text encoder."""
        name = f"lora_{self._count}"
        try:
            return attach_lora(self._modules[role], file, name=name, dtype=self._dtype, role=role)
        except CheckpointMismatch:
            if role != "denoiser" and any(whose == "denoiser" for whose, _ in file.layers):
                return None
            raise
