"""Strict, streaming loading: names, shapes and types are proved before the first tensor is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from easyanimate_core.checkpoints.archive import Archive
from easyanimate_core.checkpoints.keymap import KeyMap, Shape
from easyanimate_core.checkpoints.releases import describe_nearest
from easyanimate_core.errors import CheckpointMismatch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from easyanimate_core.placing import Keep

__all__ = ["LoadReport", "fill", "load_into", "prove_fit", "read_finite"]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How the tensors of files compare with the parameters of a module.

    Attributes:
        missing: parameters that no file holds.
        unexpected: tensors that the module has no place for.
        mismatched: name, shape in the module, shape in the file.
        loaded: how many parameters and buffers were filled.
        grown: those whose input channels were adapted because that was asked for.
        fresh: those that no file holds and that stay as they were, because only models with such inlets have them.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    loaded: int = 0
    grown: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """True when everything fits."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        shapes = [f"{name} {list(file)} instead of {list(ours)}" for name, ours, file in self.mismatched]
        parts = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", shapes))
        found = "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in parts if names)
        adapted = f", {', '.join(self.grown)} adapted" if self.grown else ""
        return found or f"{self.loaded} tensors{adapted}" + (f", {len(self.fresh)} left as new" if self.fresh else "")


def load_into(
    module: nn.Module,
    files: Sequence[Path],
    *,
    keymap: Callable[[str], str | None] | KeyMap | None = None,
    dtype: torch.dtype | None = None,
    grow_inlets: bool = False,
    keep: Keep | None = None,
) -> LoadReport:
    """Fill every parameter and persistent buffer of a module from files, tensor by tensor.

    The module may lie on the meta device; memory then holds the module, and of one file what is mapped, which the
    system takes back when it needs it. A module that has weights keeps them until all new ones are known to be good.

    Args:
        module: gets the tensors; its training mode and `requires_grad` flags stay.
        files: one file or the shards of one component.
        keymap: name in the file to name in the module, or `None` for a tensor that is not to be read; or a whole
            `KeyMap`. Names stay as they are when it is left out.
        dtype: cast floating tensors to it; as stored when `None`.
        grow_inlets: give the module's `inlet_weight` (the projection of its input channels) the columns that the
            file has, zeros for further ones, and drop what is too much; layers that the module names in
            `inlet_layers` keep the weights that it has, when no file holds them. For training from a model with other
            inlets.
        keep: gets every tensor as soon as it has been read; what is stored in the type that is wanted is not read into
            memory then, but stays in its file, which must not change while the module is used.

    Returns:
        The report, which is all clear.

    Raises:
        CheckpointMismatch: tensors are missing, unexpected, of another shape or kind, stored twice, or not finite.
            Nothing has been changed.
        UnsafeCheckpoint: a file would run code, or lies about itself.
    """
    with Archive(files) as archive:
        names = archive.header.tensors
        found = keymap if isinstance(keymap, KeyMap) else KeyMap.of(keymap or (lambda name: name), names)
        return fill(module, archive, found, dtype=dtype, grow_inlets=grow_inlets, keep=keep)


def prove_fit(
    module: nn.Module, archive: Archive, keymap: KeyMap, *, grow_inlets: bool = False
) -> tuple[KeyMap, tuple[str, ...]]:
    """Show that an archive's tensors are a module's by name, shape and kind; reads no tensor.

    Returns:
        The map to load with, and the names whose input channels it adapts.

    Raises:
        CheckpointMismatch: they are not.
    """
    targets = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    stored = {name: info.shape for name, info in archive.header.tensors.items() if name not in keymap.dropped}
    grown: tuple[str, ...] = ()
    made = keymap.prove(stored)
    inlet = str(getattr(module, "inlet_weight", ""))
    if grow_inlets and inlet in made and inlet in targets and _differ_in_inputs(made[inlet], targets[inlet]):
        keymap = keymap.resized(inlet, made[inlet][1], targets[inlet][1])
        made, grown = keymap.prove(stored), (inlet,)
    report = _compared(targets, made)
    if grown:
        report = replace(report, missing=tuple(name for name in report.missing if not _is_new(module, name)))
    if not report:
        raise CheckpointMismatch(
            f"'{archive.header.path}' does not fit this model: {report}",
            describe_nearest(made) or "Is this the checkpoint of another model or task? Compare its config.json.",
        )
    _check_kinds(module, archive, keymap)
    return keymap, grown


def fill(
    module: nn.Module,
    archive: Archive,
    keymap: KeyMap,
    *,
    dtype: torch.dtype | None = None,
    grow_inlets: bool = False,
    keep: Keep | None = None,
) -> LoadReport:
    """As `load_into`, from an archive that is open already."""
    keymap, grown = prove_fit(module, archive, keymap, grow_inlets=grow_inlets)
    values: dict[str, Tensor] = {}
    for rule in keymap.steps(name for name in archive.header.tensors if name not in keymap.dropped):
        parts = [read_finite(archive, name) for name in rule.sources]
        for target, tensor in zip(rule.targets, rule.apply(parts), strict=True):
            wanted = dtype if tensor.is_floating_point() else None
            # What an archive gives may be a window into the file: by default a copy of it.
            values[target] = tensor.to(wanted, copy=True) if keep is None else keep(tensor.to(wanted))
    for target, value in values.items():
        _place(module, target, value)
    fresh = tuple(sorted(module.state_dict().keys() - values.keys()))
    return LoadReport(loaded=len(values), grown=grown, fresh=fresh)


def _is_new(module: nn.Module, name: str) -> bool:
    """Whether a parameter is of a layer that only models with inlets have, and has a value already."""
    layers = frozenset(getattr(module, "inlet_layers", ()))
    return bool(layers & set(name.split("."))) and not module.state_dict()[name].is_meta


def _differ_in_inputs(stored: Shape, wanted: Shape) -> bool:
    """Whether two shapes differ in dimension 1 alone."""
    return (
        len(stored) == len(wanted) > 1
        and stored[1] != wanted[1]
        and stored[:1] == wanted[:1]
        and stored[2:] == wanted[2:]
    )


def _compared(targets: Mapping[str, Shape], found: Mapping[str, Shape]) -> LoadReport:
    """The report for parameters of these shapes and tensors found in files."""
    shared = targets.keys() & found.keys()
    return LoadReport(
        missing=tuple(sorted(targets.keys() - found.keys())),
        unexpected=tuple(sorted(found.keys() - targets.keys())),
        mismatched=tuple((name, targets[name], found[name]) for name in sorted(shared) if targets[name] != found[name]),
    )


def _check_kinds(module: nn.Module, archive: Archive, keymap: KeyMap) -> None:
    """Refuse whole numbers where the module computes with fractions, and the other way round."""
    targets = module.state_dict()
    for rule in keymap.steps(name for name in archive.header.tensors if name not in keymap.dropped):
        for source in rule.sources:
            info = archive.header.tensors[source]
            if info.floating != targets[rule.targets[0]].is_floating_point():
                kind = "floating-point numbers" if not info.floating else "whole numbers"
                raise CheckpointMismatch(
                    f"'{source}' in '{archive.home(source)}' is stored as {info.dtype}; this model has {kind} there",
                    "Quantised files of other tools cannot be read. Use the released weights, and --storage.",
                )


def read_finite(archive: Archive, name: str) -> Tensor:
    """One tensor as stored.

    Raises:
        CheckpointMismatch: it holds NaN or an infinity.
    """
    tensor = archive.read(name)
    if archive.header.tensors[name].floating:
        # float8 has no isfinite of its own.
        wide = tensor.float() if tensor.element_size() == 1 else tensor
        if not torch.isfinite(wide).all():
            raise CheckpointMismatch(
                f"'{name}' in '{archive.home(name)}' holds NaN or infinite values",
                "The training that wrote it diverged, or the file is damaged. Use another checkpoint.",
            )
    return tensor


def _place(module: nn.Module, name: str, value: Tensor) -> None:
    """Put a tensor where the module keeps the parameter or buffer of this name."""
    parent_name, _, leaf = name.rpartition(".")
    parent = module.get_submodule(parent_name)
    if leaf in parent._buffers:
        parent._buffers[leaf] = value
    else:
        setattr(parent, leaf, nn.Parameter(value, requires_grad=getattr(parent, leaf).requires_grad))


def _few(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a long list."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
