"""Strict, streaming loading: names and shapes are proved before the first tensor is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import nn

from easyanimate_core.checkpoints.header import Header, TensorInfo, read_header
from easyanimate_core.errors import CheckpointMismatch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["LoadReport", "load_into"]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How the tensors of files compare with the parameters of a module.

    Attributes:
        missing: parameters that no file holds.
        unexpected: tensors that the module has no place for.
        mismatched: name, shape in the module, shape in the file.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    def __bool__(self) -> bool:
        """True when everything fits."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        shapes = [f"{name} {list(file)} instead of {list(ours)}" for name, ours, file in self.mismatched]
        parts = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", shapes))
        return "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in parts if names)


def load_into(
    module: nn.Module,
    files: Sequence[Path],
    *,
    keymap: Callable[[str], str | None] | None = None,
    dtype: torch.dtype | None = None,
) -> LoadReport:
    """Fill every parameter and persistent buffer of a module from safetensors files, tensor by tensor.

    The module may lie on the meta device; memory never holds more than the module and one tensor.

    Args:
        module: gets the tensors; its training mode and `requires_grad` flags stay.
        files: one file or the shards of one component.
        keymap: name in the file to name in the module, or `None` for a tensor that is not to be read. Names stay
            as they are when it is left out.
        dtype: cast floating tensors to it; as stored when `None`.

    Returns:
        The report, which is all clear.

    Raises:
        CheckpointMismatch: tensors are missing, unexpected, of another shape, stored twice, or not finite. Nothing
            has been read before names and shapes are known to fit.
        UnsafeCheckpoint: a file lies about itself.
    """
    targets = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    headers = [read_header(file) for file in files]
    places = _located(headers, keymap or (lambda name: name))
    report = _compared(targets, {name: info for name, (_, _, info) in places.items()})
    if not report:
        raise CheckpointMismatch(
            f"'{files[0].parent}' does not fit this model: {report}",
            "Is this the checkpoint of another model or task? Compare its config.json with the preset.",
        )
    for header in headers:
        with safe_open(header.path, framework="pt", device="cpu") as file:
            for target, (path, name, _) in places.items():
                if path == header.path:
                    # A copy: what safe_open gives may still be a window into the file.
                    _place(module, target, _finite(file.get_tensor(name), name, path), dtype)
    return report


def _located(headers: Sequence[Header], keymap: Callable[[str], str | None]) -> dict[str, tuple[Path, str, TensorInfo]]:
    """Where each tensor of the module lies: module name to file, name in the file, and what the header says."""
    places: dict[str, tuple[Path, str, TensorInfo]] = {}
    for header in headers:
        for name, info in header.tensors.items():
            target = keymap(name)
            if target is None:
                continue
            if target in places:
                raise CheckpointMismatch(
                    f"'{target}' is stored in '{places[target][0].name}' and in '{header.path.name}'",
                    "Remove leftover files of another download from the folder.",
                )
            places[target] = (header.path, name, info)
    return places


def _compared(targets: Mapping[str, tuple[int, ...]], found: Mapping[str, TensorInfo]) -> LoadReport:
    """The report for parameters of these shapes and tensors found in files."""
    shared = targets.keys() & found.keys()
    return LoadReport(
        missing=tuple(sorted(targets.keys() - found.keys())),
        unexpected=tuple(sorted(found.keys() - targets.keys())),
        mismatched=tuple(
            (name, targets[name], found[name].shape) for name in sorted(shared) if targets[name] != found[name].shape
        ),
    )


def _finite(tensor: Tensor, name: str, path: Path) -> Tensor:
    """The tensor, unless it holds NaN or an infinity."""
    if tensor.is_floating_point():
        # float8 has no isfinite of its own.
        wide = tensor.float() if tensor.element_size() == 1 else tensor
        if not torch.isfinite(wide).all():
            raise CheckpointMismatch(
                f"'{name}' in '{path}' holds NaN or infinite values",
                "The training that wrote it diverged, or the file is damaged. Use another checkpoint.",
            )
    return tensor


def _place(module: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype | None) -> None:
    """Put a copy of a tensor where the module keeps the parameter or buffer of this name."""
    parent_name, _, leaf = name.rpartition(".")
    parent = module.get_submodule(parent_name)
    value = tensor.to(dtype if tensor.is_floating_point() else None, copy=True)
    if leaf in parent._buffers:
        parent._buffers[leaf] = value
    else:
        setattr(parent, leaf, nn.Parameter(value, requires_grad=getattr(parent, leaf).requires_grad))


def _few(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a long list."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
