"""Which layer of a model each part of a LoRA belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from easyanimate_core.checkpoints.diffusers import from_diffusers_name
from easyanimate_core.checkpoints.lora.names import flat, linear_names
from easyanimate_core.errors import CheckpointMismatch

if TYPE_CHECKING:
    from easyanimate_core.checkpoints.lora.file import LoraFile, LowRank

__all__ = ["LoraReport", "match_lora", "scaled"]


@dataclass(frozen=True, slots=True)
class LoraReport:
    """What of a LoRA found its place.

    Attributes:
        name: of the file.
        layout: that it came in.
        applied: layers of the model that it changes.
        total: layers that it holds.
        unused: stored names of layers that the model does not have.
    """

    name: str
    layout: str
    applied: int
    total: int
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        rest = (
            f"; no place for {', '.join(self.unused[:3])}{'…' if len(self.unused) > 3 else ''}" if self.unused else ""
        )
        return f"LoRA '{self.name}' ({self.layout}): {self.applied} of {self.total} layers applied{rest}"


def match_lora(file: LoraFile, module: nn.Module, role: str = "denoiser") -> tuple[dict[str, LowRank], LoraReport]:
    """The parts of a LoRA by the paths of a module's layers, and a report.

    Args:
        file: as read.
        module: a denoiser or text encoder; LoRAs that are attached already do not matter.
        role: whose layers to take: `"denoiser"`, or `"text"` for a text encoder.

    Raises:
        CheckpointMismatch: no layer finds a place, or one does and has other sizes.
    """
    layers = {name.removesuffix(".base_layer"): module.get_submodule(name) for name in linear_names(module)}
    places = {**flat(layers), **{name: name for name in layers}} if file.layout == "kohya" else {n: n for n in layers}
    found: dict[str, LowRank] = {}
    unused: list[str] = []
    for (whose, name), part in file.layers.items():
        place = places.get(from_diffusers_name(name)) if whose == role else None
        if place is None:
            unused.append(name if whose == "denoiser" else f"{whose}:{name}")
            continue
        _check_sizes(file, place, layers[place], part)
        found[place] = part
    report = LoraReport(file.path.name, file.layout, len(found), len(file.layers), tuple(unused))
    if not found:
        raise CheckpointMismatch(
            f"none of the {report.total} layers of the LoRA '{file.path}' is in this model "
            f"(it begins with '{unused[0]}')",
            "It was trained for another generation. Give a LoRA of the model's own family.",
        )
    return found, report


def _check_sizes(file: LoraFile, place: str, layer: nn.Module, part: LowRank) -> None:
    weight = getattr(layer, "weight", None)
    wanted = tuple(getattr(weight, "shape", ()))[:2]
    stored = (part.up.shape[0], part.down.shape[1])
    if wanted != stored:
        raise CheckpointMismatch(
            f"the LoRA '{file.path}' changes '{place}' as {list(stored)}, the model has {list(wanted)} there",
            "It was trained for a model of another size (7B, 12B).",
        )


def scaled(parts: Mapping[str, LowRank]) -> dict[str, float]:
    """The alpha of each layer, where one without alpha has its rank."""
    return {name: float(part.rank) if part.alpha is None else part.alpha for name, part in parts.items()}
