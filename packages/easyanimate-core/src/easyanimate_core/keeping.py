"""What a run keeps while it works, so that a crash costs little.

Nothing here imports torch at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KeepsNothing", "Snapshot", "Snapshots"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Something that a run computed and kept.

    Attributes:
        tensors: by name, on the CPU.
        notes: JSON-able facts beside them.
    """

    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)


class Snapshots(Protocol):
    """Where a run keeps what it should not have to compute twice: a job's folder, or nowhere.

    A stage loads what it finds under its own name, goes on from there, and saves when `due`. After a crash the same
    plan runs again with the same snapshots. A stage that runs others in turn (segments of a long video) gives each
    of them `within("segment-3")`, so that their names do not meet.
    """

    def load(self, name: str) -> Snapshot | None:
        """What was saved last under this name; `None` when nothing was."""
        ...

    def save(self, name: str, tensors: Mapping[str, Tensor], **notes: Any) -> None:
        """Keep this, whole or not at all, in the place of what had the name before."""
        ...

    def due(self, name: str) -> bool:
        """Whether it is time to save again under this name: enough steps and seconds since the last time."""
        ...

    def drop(self, name: str) -> None:
        """Forget what has this name, and all that is within it."""
        ...

    def within(self, scope: str) -> Snapshots:
        """The same place with names of their own, below `scope`."""
        ...


class KeepsNothing:
    """Snapshots of a run that nobody will resume."""

    def load(self, name: str) -> None:
        """Nothing was saved."""

    def save(self, name: str, tensors: Mapping[str, Tensor], **notes: Any) -> None:
        """Nothing is kept."""

    def due(self, name: str) -> bool:
        """Never."""
        return False

    def drop(self, name: str) -> None:
        """Nothing is there."""

    def within(self, scope: str) -> KeepsNothing:
        """Nothing either."""
        return self
