"""TeaCache: run the blocks only when their input has changed enough since they last ran.

How much the output will change is a polynomial of how much the first block's modulated input has changed; its
coefficients were fitted for each released model. The first and the last step always run. All of it stays on the
device; one number per step comes back to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.step_caches.memory import Tally, relative_change, whole
from easyanimate_core.step_caches.options import TeaCacheOptions
from easyanimate_core.stepping import ShowsChange

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import Denoiser, Tokens
    from easyanimate_core.stepping import CacheReport, DenoiserCall, Predict

__all__ = ["TeaCache"]


class TeaCache:
    """Liu et al., "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model", arXiv:2411.19108.

    Change is accumulated step by step, `Σ p(mean |x − x'| / mean |x'|)` over the first block's modulated input x, and
    starts at 0 when the blocks run. What the trunk added then, final norms included, is added to the tokens of the
    steps that are skipped.
    """

    innermost = True

    def __init__(self, options: TeaCacheOptions | None = None) -> None:
        self.options = options or TeaCacheOptions()
        self._tally = Tally(0)

    def begin(self, denoiser: Denoiser, total: int) -> None:
        """Forget the last run; see `StepCache`.

        Raises:
            InvalidRequest: the denoiser cannot show its first block's input, or there are no coefficients.
        """
        if not isinstance(denoiser, ShowsChange):
            raise InvalidRequest(
                f"'teacache' cannot look into '{type(denoiser).__name__}'", "Use 'easycache': it looks from outside."
            )
        if self.options.coefficients is None:
            raise InvalidRequest(
                "there are no coefficients of 'teacache' for this model",
                "Use 'first-block' or 'easycache', which need none, or give 'coefficients'.",
            )
        self._tally = Tally(total)

    def predict(self, call: DenoiserCall, then: Predict) -> Tensor:
        """Run the blocks, or add what they added last; see `StepCache`."""
        tally, batches = self._tally, call.batches()
        tokens = [batch.tokens() for batch in batches]
        seen = whole([self._seen(batch, own) for batch, own in zip(batches, tokens, strict=True)])
        before, added = tally.like("seen", seen), tally.like("added", tokens[0].video, times=len(batches))
        tally.kept["seen"] = seen
        if before is not None and added is not None and not call.last:
            tally.accumulated += self._foretold(relative_change(seen, before))
            if tally.accumulated < self.options.threshold and self.options.threshold > 0:
                tally.skipped(call.index, tally.accumulated)
                shares = added.chunk(len(batches))
                return whole(
                    [b.answered(t.replaced(t.video + s)) for b, t, s in zip(batches, tokens, shares, strict=True)]
                )
        tally.accumulated = 0.0
        answers, changes = [], []
        for batch, own in zip(batches, tokens, strict=True):
            done = batch.denoiser.trunk(own)
            changes.append(done.video - own.video)
            answers.append(batch.answered(done))
        tally.kept["added"] = whole(changes)
        return whole(answers)

    def _seen(self, call: DenoiserCall, tokens: Tokens) -> Tensor:
        """Of the first block's input, the tokens that are compared."""
        assert isinstance(call.denoiser, ShowsChange)
        return call.denoiser.probe(tokens)[:, :: self.options.every].contiguous()

    def _foretold(self, change: float) -> float:
        """The polynomial at `change`, by Horner's rule."""
        assert self.options.coefficients is not None
        return reduce(lambda value, coefficient: value * change + coefficient, self.options.coefficients, 0.0)

    def tokens_kept(self) -> float:
        """What the trunk added, and what is compared; see `KeepsTokens`."""
        return 1 + 1 / self.options.every

    def report(self) -> CacheReport:
        """What was skipped; the error is the accumulated change at the worst step."""
        return self._tally.report()

    def remembered(self) -> Mapping[str, Tensor]:
        """See `CacheMemory`."""
        return self._tally.remembered()

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """See `CacheMemory`."""
        self._tally.recall(memory)
