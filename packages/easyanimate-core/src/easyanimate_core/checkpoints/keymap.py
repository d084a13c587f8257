"""From stored names to a module's names and back: declared, not programmed, and proved before a tensor is read.

A `KeyMap` is a list of rules. Each takes some tensors and gives others; a name without a rule stays as it is. Every
rule has an inverse, so one map serves loading and saving, and `prove` shows from shapes alone that every stored
tensor is used once and every name is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import torch

from easyanimate_core.errors import CheckpointMismatch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KeyMap", "Merge", "Pad", "Rename", "Rule", "Shape", "Split"]

Shape: TypeAlias = tuple[int, ...]
"""Sizes of a tensor's dimensions."""


@dataclass(frozen=True, slots=True)
class Rename:
    """One tensor under another name."""

    source: str
    target: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Stored names."""
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names in the module."""
        return (self.target,)

    def shapes(self, given: Sequence[Shape]) -> tuple[Shape, ...]:
        """Shapes of the targets."""
        return tuple(given)

    def apply(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors of the targets."""
        return tuple(tensors)

    def inverse(self) -> Rename:
        """The way back."""
        return Rename(self.target, self.source)


@dataclass(frozen=True, slots=True)
class Split:
    """One tensor cut along a dimension: a fused `qkv` into `q`, `k` and `v`.

    Attributes:
        source: stored name.
        targets: names in the module, in order.
        sizes: length of each target along `dim`.
        dim: where to cut.
    """

    source: str
    targets: tuple[str, ...]
    sizes: tuple[int, ...]
    dim: int = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """Stored names."""
        return (self.source,)

    def shapes(self, given: Sequence[Shape]) -> tuple[Shape, ...]:
        """Shapes of the targets.

        Raises:
            CheckpointMismatch: the sizes do not add up to the tensor.
        """
        (shape,) = given
        if self.dim >= len(shape) or sum(self.sizes) != shape[self.dim]:
            raise _impossible(f"'{self.source}' {list(shape)} cannot be cut into {list(self.sizes)}")
        return tuple((*shape[: self.dim], size, *shape[self.dim + 1 :]) for size in self.sizes)

    def apply(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors of the targets."""
        return tuple(torch.split(tensors[0], list(self.sizes), dim=self.dim))

    def inverse(self) -> Merge:
        """The way back."""
        return Merge(self.targets, self.source, self.sizes, self.dim)


@dataclass(frozen=True, slots=True)
class Merge:
    """Several tensors joined along a dimension; the inverse of `Split`.

    Attributes:
        sources: stored names, in order.
        target: name in the module.
        sizes: length of each source along `dim`.
        dim: where they are joined.
    """

    sources: tuple[str, ...]
    target: str
    sizes: tuple[int, ...]
    dim: int = 0

    @property
    def targets(self) -> tuple[str, ...]:
        """Names in the module."""
        return (self.target,)

    def shapes(self, given: Sequence[Shape]) -> tuple[Shape, ...]:
        """Shape of the target.

        Raises:
            CheckpointMismatch: the sources do not have the sizes, or do not fit beside each other.
        """
        lengths = tuple(shape[self.dim] if self.dim < len(shape) else -1 for shape in given)
        rests = {(*shape[: self.dim], *shape[self.dim + 1 :]) for shape in given}
        if lengths != self.sizes or len(rests) != 1:
            raise _impossible(f"'{', '.join(self.sources)}' cannot be joined into '{self.target}'")
        return ((*given[0][: self.dim], sum(self.sizes), *given[0][self.dim + 1 :]),)

    def apply(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensor of the target."""
        return (torch.cat(list(tensors), dim=self.dim),)

    def inverse(self) -> Split:
        """The way back."""
        return Split(self.target, self.sources, self.sizes, self.dim)


@dataclass(frozen=True, slots=True)
class Pad:
    """A tensor of another length along one dimension: the first entries stay, new ones are zero.

    The way back cuts the zeros off again. Cutting entries that are not zero loses them, so it is refused unless
    `lossy` says that this is wanted.

    Attributes:
        source: stored name.
        target: name in the module.
        before: stored length along `dim`.
        after: length in the module.
        dim: which dimension.
        lossy: whether entries that are not zero may be cut off.
    """

    source: str
    target: str
    before: int
    after: int
    dim: int = 1
    lossy: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Stored names."""
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names in the module."""
        return (self.target,)

    def shapes(self, given: Sequence[Shape]) -> tuple[Shape, ...]:
        """Shape of the target.

        Raises:
            CheckpointMismatch: the stored tensor does not have the length `before`.
        """
        (shape,) = given
        if self.dim >= len(shape) or shape[self.dim] != self.before:
            raise _impossible(f"'{self.source}' {list(shape)} does not have the length {self.before}")
        return ((*shape[: self.dim], self.after, *shape[self.dim + 1 :]),)

    def apply(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensor of the target.

        Raises:
            CheckpointMismatch: what would be cut off is not zero.
        """
        (tensor,) = tensors
        kept = tensor.narrow(self.dim, 0, min(self.before, self.after))
        if self.after <= self.before:
            if not self.lossy and tensor.narrow(self.dim, self.after, self.before - self.after).any():
                raise _impossible(f"cutting '{self.source}' to {self.after} entries would lose weights")
            return (kept,)
        zeros = tensor.new_zeros((*tensor.shape[: self.dim], self.after - self.before, *tensor.shape[self.dim + 1 :]))
        return (torch.cat([kept, zeros], dim=self.dim),)

    def inverse(self) -> Pad:
        """The way back."""
        return Pad(self.target, self.source, self.after, self.before, self.dim)


Rule: TypeAlias = Rename | Split | Merge | Pad
"""What a `KeyMap` is made of."""


@dataclass(frozen=True, slots=True)
class KeyMap:
    """How stored tensors become a module's.

    Attributes:
        rules: for names that differ; all other names stay.
        dropped: stored names that are not read; only a map that drops nothing has an inverse.
    """

    rules: tuple[Rule, ...] = ()
    dropped: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rename: Callable[[str], str | None], names: Iterable[str]) -> KeyMap:
        """The map that a function of names makes; names for which it returns `None` are dropped."""
        found = {name: rename(name) for name in names}
        return cls(
            tuple(Rename(name, new) for name, new in found.items() if new is not None and new != name),
            frozenset(name for name, new in found.items() if new is None),
        )

    def steps(self, names: Iterable[str]) -> Iterator[Rule]:
        """All rules for these stored names, those of names that stay included."""
        ruled = {source for rule in self.rules for source in rule.sources}
        yield from self.rules
        yield from (Rename(name, name) for name in names if name not in ruled and name not in self.dropped)

    def prove(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Show from names and shapes that the map fits; reads no tensor.

        Args:
            shapes: of the stored tensors, by name.

        Returns:
            Shapes in the module, by name.

        Raises:
            CheckpointMismatch: a stored tensor is missing or used twice, a name is made twice, or shapes do not
                allow a rule.
        """
        made: dict[str, Shape] = {}
        used: set[str] = set()
        for rule in self.steps(shapes):
            for source in rule.sources:
                if source not in shapes:
                    raise _impossible(f"'{source}', which the key map needs, is not stored")
                if source in used:
                    raise _impossible(f"'{source}' is used twice by the key map")
                used.add(source)
            for target, shape in zip(rule.targets, rule.shapes([shapes[name] for name in rule.sources]), strict=True):
                if target in made:
                    raise _impossible(
                        f"'{target}' is made twice by the key map, the second time from '{rule.sources[0]}'"
                    )
                made[target] = shape
        return made

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The module's tensors, all at once; loading applies one rule at a time instead.

        Raises:
            CheckpointMismatch: the map does not fit.
        """
        self.prove({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return {
            target: tensor
            for rule in self.steps(tensors)
            for target, tensor in zip(rule.targets, rule.apply([tensors[name] for name in rule.sources]), strict=True)
        }

    def inverse(self) -> KeyMap:
        """The map from the module's names to the stored ones.

        Raises:
            CheckpointMismatch: the map drops tensors, so there is no way back.
        """
        if self.dropped:
            raise _impossible(f"a key map that drops '{min(self.dropped)}' has no inverse")
        return KeyMap(tuple(rule.inverse() for rule in self.rules))

    def resized(self, name: str, before: int, after: int) -> KeyMap:
        """This map, with one of the module's tensors given another length along dimension 1; lossy when cut.

        Raises:
            CheckpointMismatch: the tensor is not simply renamed by this map.
        """
        pad = Pad(name, name, before, after, lossy=True)
        for rule in self.rules:
            if name in rule.targets:
                if not isinstance(rule, Rename):
                    raise _impossible(f"'{name}' is put together from parts and cannot be resized")
                others = tuple(other for other in self.rules if other is not rule)
                return replace(self, rules=(*others, replace(pad, source=rule.source)))
        return replace(self, rules=(*self.rules, pad))


def _impossible(what: str) -> CheckpointMismatch:
    return CheckpointMismatch(what, "The file is of another model, or damaged.")
