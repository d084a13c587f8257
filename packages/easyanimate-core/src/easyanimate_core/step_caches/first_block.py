"""First-block cache: the first block always runs, and tells whether the others have to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.step_caches.memory import Tally, relative_change, whole
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
        tally, batches = self._tally, call.batches()
        tokens = [batch.tokens() for batch in batches]
        first = [_split(batch.denoiser).first(own) for batch, own in zip(batches, tokens, strict=True)]
        change = whole([after.video - own.video for after, own in zip(first, tokens, strict=True)])
        before, added = tally.like("change", change), tally.like("added", first[0].video, times=len(batches))
        if before is not None and added is not None and not call.last:
            off = relative_change(change, before)
            if off < self.options.threshold:
                tally.skipped(call.index, off)
                shares = added.chunk(len(batches))
                return whole(
                    [b.answered(f.replaced(f.video + s)) for b, f, s in zip(batches, first, shares, strict=True)]
                )
        answers, changes = [], []
        for batch, own in zip(batches, first, strict=True):
            done = _split(batch.denoiser).rest(own)
            changes.append(done.video - own.video)
            answers.append(batch.answered(done))
        tally.kept["change"], tally.kept["added"] = change, whole(changes)
        return whole(answers)

    def tokens_kept(self) -> float:
        """What the first block added, and what the others did; see `KeepsTokens`."""
        return 2

    def report(self) -> CacheReport:
        """What was skipped; the error is the first block's change at the worst step."""
        return self._tally.report()

    def remembered(self) -> Mapping[str, Tensor]:
        """See `CacheMemory`."""
        return self._tally.remembered()

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """See `CacheMemory`."""
        self._tally.recall(memory)


def _split(denoiser: object) -> SplitsTrunk:
    """A denoiser that `begin` has let through."""
    assert isinstance(denoiser, SplitsTrunk)
    return denoiser
