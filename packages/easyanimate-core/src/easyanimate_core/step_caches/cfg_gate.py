"""Guidance gate: late in a run, the unguided half is not computed any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from easyanimate_core.step_caches.memory import Tally, mean_size
from easyanimate_core.step_caches.options import CfgGateOptions

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import Denoiser
    from easyanimate_core.stepping import CacheReport, DenoiserCall, Predict

__all__ = ["CfgGate"]


class CfgGate:
    """Late in a run the two halves of guidance differ by nearly the same from step to step.

    After the gate only the conditional half c runs, and the unguided one is `c − d` with the last computed difference
    d. Castillo et al., "Adaptive Guidance", arXiv:2312.12487, drop it altogether; keeping d keeps the guidance's
    strength. Goes in front of other caches.
    """

    innermost = False

    def __init__(self, options: CfgGateOptions | None = None) -> None:
        self.options = options or CfgGateOptions()
        self._tally = Tally(0)

    def begin(self, denoiser: Denoiser, total: int) -> None:
        """Forget the last run; see `StepCache`."""
        self._tally = Tally(total)
        self._tally.kept["since"] = torch.tensor(0)

    def predict(self, call: DenoiserCall, then: Predict) -> Tensor:
        """Both halves, or one and the difference; see `StepCache`."""
        tally = self._tally
        if not call.guided:
            return then(call)
        half = call.latents[: call.latents.shape[0] // 2]
        difference, since = tally.like("difference", half), int(tally.kept["since"])
        closed = call.index >= 2 and call.index >= self.options.after * call.total
        fresh = self.options.refresh == 0 or since < self.options.refresh
        if closed and fresh and difference is not None:
            conditional = then(call.conditional())
            tally.kept["since"] = torch.tensor(since + 1)
            # Accumulated holds how much the difference moved between the last two steps that computed it.
            tally.skipped(call.index, tally.accumulated * (since + 1) / max(mean_size(conditional), 1e-30))
            return torch.cat([conditional - difference, conditional])
        answer = then(call)
        unguided, conditional = answer.chunk(2)
        now = conditional - unguided
        tally.accumulated = 0.0 if difference is None else mean_size(now - difference)
        tally.kept["difference"], tally.kept["since"] = now, torch.tensor(0)
        return answer

    def report(self) -> CacheReport:
        """Which steps computed one half only; the error is how far the difference may have moved meanwhile."""
        return self._tally.report()

    def remembered(self) -> Mapping[str, Tensor]:
        """See `CacheMemory`."""
        return self._tally.remembered()

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """See `CacheMemory`."""
        self._tally.recall(memory)
