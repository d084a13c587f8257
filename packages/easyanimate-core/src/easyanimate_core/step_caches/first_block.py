"""First-block cache: the first block always runs, and tells whether the others have to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.step_caches.memory import Tally, relative_change
from easyanimate_core.step_caches.options import FirstBlockOptions
from easyanimate_core.stepping import SplitsTrunk

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import Denoiser
    from easyanimate_core.stepping import CacheReport, DenoiserCall, Predict

__all__ = ["FirstBlock"]


class FirstBlock:
    """Compares what the first block adds to the tokens with what it added when all blocks ran last.

    Below the threshold, what the other blocks and the final norms added then is added again. The last step always
    runs. Needs no coefficients; known as "first block cache" from ParaAttention.
    """

    innermost = True

    def __init__(self, options: FirstBlockOptions | None = None) -> None:
        self.options = options or FirstBlockOptions()
        self._tally = Tally(0)

    def begin(self, denoiser: Denoiser, total: int) -> None:
        """Forget the last run; see `StepCache`.

        Raises:
            InvalidRequest: the denoiser cannot run its first block alone.
        """
        if not isinstance(denoiser, SplitsTrunk):
            raise InvalidRequest(
                f"'first-block' cannot split '{type(denoiser).__name__}'", "Use 'easycache': it looks from outside."
            )
        self._tally = Tally(total)

    def predict(self, call: DenoiserCall, then: Predict) -> Tensor:
        """Run the first block, and the others when it says so; see `StepCache`."""
        tally, denoiser = self._tally, call.denoiser
        assert isinstance(denoiser, SplitsTrunk)
        tokens = call.tokens()
        first = denoiser.first(tokens)
        change = first.video - tokens.video
        before, added = tally.like("change", change), tally.like("added", first.video)
        if before is not None and added is not None and not call.last:
            off = relative_change(change, before)
            if off < self.options.threshold:
                tally.skipped(call.index, off)
                return call.answered(first.replaced(first.video + added))
        done = denoiser.rest(first)
        tally.kept["change"], tally.kept["added"] = change, done.video - first.video
        return call.answered(done)

    def report(self) -> CacheReport:
        """What was skipped; the error is the first block's change at the worst step."""
        return self._tally.report()

    def remembered(self) -> Mapping[str, Tensor]:
        """See `CacheMemory`."""
        return self._tally.remembered()

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """See `CacheMemory`."""
        self._tally.recall(memory)
