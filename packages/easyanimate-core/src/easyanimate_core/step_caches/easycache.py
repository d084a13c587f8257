"""EasyCache: skip the network while its output follows its input at a steady rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from easyanimate_core.step_caches.memory import Tally, mean_size
from easyanimate_core.step_caches.options import EasyCacheOptions

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import Denoiser
    from easyanimate_core.stepping import CacheReport, DenoiserCall, Predict

__all__ = ["EasyCache"]


class EasyCache:
    """Zhou et al., "Less is Enough: Training-Free Video Diffusion Acceleration via Runtime-Adaptive Caching",
    arXiv:2507.02860, section 3.

    From two computed steps it takes the rate `k = mean |v − v'| / mean |x − x'|` of output v over input x. Each further
    step is expected to change the output by `k · mean |x − x'| / mean |v|`; until the sum reaches the threshold the
    answer is `x + (v − x of the last computed step)`. Looks at input and output only, so it goes with every denoiser.
    """

    innermost = False

    def __init__(self, options: EasyCacheOptions | None = None) -> None:
        self.options = options or EasyCacheOptions()
        self._tally = Tally(0)

    def begin(self, denoiser: Denoiser, total: int) -> None:
        """Forget the last run; see `StepCache`."""
        self._tally = Tally(total)

    def predict(self, call: DenoiserCall, then: Predict) -> Tensor:
        """Compute, or move the last answer along; see `StepCache`."""
        tally, x = self._tally, call.latents
        before, output = tally.like("input", x), tally.like("output", x)
        rate = tally.kept.get("rate")
        tally.kept["input"] = x
        if before is not None and output is not None and rate is not None:
            tally.accumulated += float(rate) * mean_size(x - before) / max(mean_size(output), 1e-30)
            early = call.index < self.options.warmup or call.last
            if not early and tally.accumulated < self.options.threshold:
                tally.skipped(call.index, tally.accumulated)
                return x + (output - tally.kept["computed_at"].to(x.device))
        answer = then(call)
        computed_at = tally.like("computed_at", x)
        if output is not None and computed_at is not None:
            moved = max(mean_size(x - computed_at), 1e-30)
            tally.kept["rate"] = torch.tensor(mean_size(answer - output) / moved, dtype=torch.float64)
        tally.accumulated = 0.0
        tally.kept["output"], tally.kept["computed_at"] = answer, x
        return answer

    def report(self) -> CacheReport:
        """What was skipped; the error is the accumulated change at the worst step."""
        return self._tally.report()

    def remembered(self) -> Mapping[str, Tensor]:
        """See `CacheMemory`."""
        return self._tally.remembered()

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """See `CacheMemory`."""
        self._tally.recall(memory)
