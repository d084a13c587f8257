"""What every step cache keeps beside its own: which steps it skipped, and how far off it believes to have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from easyanimate_core.stepping import CacheReport

__all__ = ["Tally", "mean_size", "relative_change", "whole"]


class Tally:
    """Counts a run's skipped steps, and keeps a cache's tensors and its accumulated change.

    Attributes:
        kept: tensors of earlier steps, by name, where they were computed.
        accumulated: change since the last computed step.
    """

    def __init__(self, total: int) -> None:
        self.kept: dict[str, Tensor] = {}
        self.accumulated = 0.0
        self._total, self._skipped, self._error = total, [False] * total, 0.0

    def skipped(self, index: int, error: float) -> None:
        """This step was answered without the network, off by about `error`, relative."""
        self._skipped[index] = True
        self._error = max(self._error, error)

    def report(self) -> CacheReport:
        """See `StepCache.report`."""
        return CacheReport(tuple(i for i, skipped in enumerate(self._skipped) if skipped), self._total, self._error)

    def remembered(self) -> dict[str, Tensor]:
        """See `CacheMemory.remembered`."""
        numbers = torch.tensor([self.accumulated, self._error], dtype=torch.float64)
        tensors: dict[str, Tensor] = {}
        for name, value in self.kept.items():
            # One tensor may have two names; a snapshot keeps every name apart.
            tensors[name] = value.clone() if any(value is other for other in tensors.values()) else value
        return {**tensors, "numbers": numbers, "skipped": torch.tensor(self._skipped)}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """See `CacheMemory.recall`."""
        self.kept = {name: value for name, value in memory.items() if name not in ("numbers", "skipped")}
        self.accumulated, self._error = (float(number) for number in memory["numbers"])
        self._skipped = [bool(skipped) for skipped in memory["skipped"]]

    def like(self, name: str, wanted: Tensor, *, times: int = 1) -> Tensor | None:
        """What is kept under a name, on the device of `wanted`; `None` when there is nothing of that shape, with as
        many times the samples."""
        kept = self.kept.get(name)
        if kept is None or kept.shape != (times * wanted.shape[0], *wanted.shape[1:]):
            return None
        self.kept[name] = kept = kept.to(wanted.device)
        return kept


def whole(parts: Sequence[Tensor]) -> Tensor:
    """The samples of all parts, `(B, …)`; of one part, itself."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def relative_change(now: Tensor, before: Tensor) -> float:
    """`mean |now − before| / mean |before|`, computed where the tensors are; one number comes back."""
    return mean_size(now - before) / max(mean_size(before), 1e-30)


def mean_size(x: Tensor) -> float:
    """`mean |x|`, summed in float32."""
    return float(x.abs().mean(dtype=torch.float32))
