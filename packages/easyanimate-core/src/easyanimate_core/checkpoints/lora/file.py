"""A LoRA file, read: pairs of thin matrices by layer, in whichever layout they came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from easyanimate_core.checkpoints.archive import Archive
from easyanimate_core.checkpoints.lora.names import Part, part_of
from easyanimate_core.checkpoints.lora.place import SAVED_NAMES, locate_lora
from easyanimate_core.checkpoints.source import read_json
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound, UnknownFormat

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LoraFile", "LowRank", "read_lora"]

_OTHER_METHODS: Final = ("lora_magnitude_vector", "dora_scale", "hada_w", "lokr_w", "oft_", "lora_mid")


@dataclass(frozen=True, slots=True)
class LowRank:
    """What a LoRA adds to one layer: `scale · up @ down`.

    Attributes:
        down: `(r, in)`, or `(r, in, 1, 1)` for a convolution.
        up: `(out, r)`, or `(out, r, 1, 1)`.
        alpha: numerator of the scale; `None` means the rank, so that the scale is 1.
    """

    down: Tensor
    up: Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        """Width of the bottleneck."""
        return int(self.up.shape[1])

    @property
    def scale(self) -> float:
        """`alpha / rank`, or 1."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def delta(self) -> Tensor:
        """What is added to the weight, in float32 and in the weight's shape `(out, in)` or `(out, in, 1, 1)`."""
        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        product = self.scale * (up @ down)
        return product if self.down.ndim == 2 else product[..., None, None]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA as stored.

    Attributes:
        path: where it came from.
        layout: `"kohya"`, `"peft"` or `"diffusers"`.
        layers: by role and by the layer's stored name.
        metadata: the text that its writer left.
        keys: how many tensors it holds.
    """

    path: Path
    layout: str
    layers: Mapping[tuple[str, str], LowRank]
    metadata: Mapping[str, str]
    keys: int


def read_lora(path: str | Path) -> LoraFile:
    """Read a LoRA; the layout is found by its names.

    Args:
        path: a file, a folder that PEFT or diffusers saved, or `owner/name:file` from a cache; see `locate_lora`.

    Raises:
        CheckpointNotFound: there is no such file.
        UnknownFormat: it is no LoRA, or one of another method (DoRA, LoHa, LoKr).
        CheckpointMismatch: a layer is incomplete, its matrices do not fit, or hold NaN.
        UnsafeCheckpoint: the file would run code, or lies about itself.
    """
    path = locate_lora(path)
    file = _file_of(path)
    with Archive([file]) as archive:
        names, metadata = list(archive.header.tensors), archive.header.metadata
        parts = {name: part for name in names if (part := _known(name, path)) is not None}
        if not parts:
            raise UnknownFormat(
                f"'{path}' is no LoRA file (it begins with '{(names or ['nothing'])[0]}')", "Is it a model?"
            )
        scales = _scales(file, metadata)
        grouped: dict[tuple[str, str], dict[str, Tensor]] = {}
        for name, part in parts.items():
            grouped.setdefault((part.role, part.layer), {})[part.part] = archive.read(name).clone()
        layers = {key: _layer(key[1], found, scales, path) for key, found in grouped.items()}
    return LoraFile(path, _layout(parts), layers, metadata, len(names))


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in SAVED_NAMES:
        if (file := path / name).is_file():
            return file
    expected = " or ".join(name for name in SAVED_NAMES if name.endswith(".safetensors"))
    raise CheckpointNotFound(f"'{path}' holds no LoRA", f"Expected {expected}.")


def _known(name: str, path: Path) -> Part | None:
    if any(word in name for word in _OTHER_METHODS):
        raise UnknownFormat(
            f"'{path}' is not a plain LoRA (it has '{name}')", "DoRA, LoHa, LoKr and OFT are not supported."
        )
    return part_of(name)


def _layout(parts: Mapping[str, Part]) -> str:
    layouts = {part.layout for part in parts.values()}
    return next(iter(layouts)) if len(layouts) == 1 else "diffusers"


def _layer(name: str, found: Mapping[str, Tensor], scales: _Scales, path: Path) -> LowRank:
    if missing := [part for part in ("down", "up") if part not in found]:
        raise CheckpointMismatch(f"'{path}': the layer '{name}' has no {missing[0]} matrix", "Fetch the file again.")
    down, up = found["down"], found["up"]
    if down.ndim != up.ndim or down.ndim not in (2, 4) or up.shape[1] != down.shape[0]:
        raise CheckpointMismatch(
            f"'{path}': the matrices of '{name}' do not fit: {list(down.shape)} and {list(up.shape)}", "Fetch it again."
        )
    if not (torch.isfinite(down.float()).all() and torch.isfinite(up.float()).all()):
        raise CheckpointMismatch(f"'{path}': '{name}' holds NaN or infinite values", "Its training diverged.")
    alpha = float(found["alpha"].item()) if "alpha" in found else scales.alpha(name, int(up.shape[1]))
    return LowRank(down, up, alpha)


@dataclass(frozen=True, slots=True)
class _Scales:
    """What a PEFT configuration says about scales; empty for files without one."""

    config: Mapping[str, Any]

    def alpha(self, layer: str, rank: int) -> float | None:
        patterns = self.config.get("alpha_pattern") or {}
        alpha = next(
            (value for key, value in patterns.items() if layer == key or layer.endswith(f".{key}")),
            self.config.get("lora_alpha"),
        )
        if alpha is None:
            return None
        # rsLoRA divides by the root of the rank (arXiv:2312.03732).
        return float(alpha) * rank**0.5 if self.config.get("use_rslora") else float(alpha)


def _scales(file: Path, metadata: Mapping[str, str]) -> _Scales:
    if (beside := file.with_name("adapter_config.json")).is_file():
        return _Scales(read_json(beside))
    try:
        stored = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        stored = {}
    if not isinstance(stored, dict):
        return _Scales({})
    return _Scales({key.removeprefix("transformer."): value for key, value in stored.items()})
