"""One call of a denoiser within a run of steps, and the contract of what may answer it without computing: step caches.

Nothing here imports torch at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import TextEmbedding
    from easyanimate_core.interfaces import Denoiser, Tokens

__all__ = [
    "CacheMemory",
    "CacheReport",
    "DenoiserCall",
    "KeepsTokens",
    "Predict",
    "ShowsChange",
    "SplitsTrunk",
    "StepCache",
]


@dataclass(frozen=True, slots=True)
class DenoiserCall:
    """What the loop asks the denoiser at one step.

    Attributes:
        index: of the step, from 0.
        total: steps of the run.
        denoiser: who is asked: the model, or what it prepared for this step.
        model: the model itself.
        latents: `(B, C, f, h, w)`; `(2·B, …)` when guided, the unguided half first.
        timestep: `(B,)` or `(2·B,)`, on the 0…1000 scale, as the denoiser sees it.
        text: embeddings of as many samples, one per text encoder.
        conditions: wired inlets of as many samples.
        guided: both halves are asked.
        apart: the device is too small for both halves as one batch.
    """

    index: int
    total: int
    denoiser: Denoiser
    model: Denoiser
    latents: Tensor
    timestep: Tensor
    text: Sequence[TextEmbedding]
    conditions: Mapping[str, Tensor]
    guided: bool
    apart: bool = False

    @property
    def last(self) -> bool:
        """Whether this is the run's last step."""
        return self.index == self.total - 1

    def tokens(self) -> Tokens:
        """What enters the trunk."""
        return self.denoiser.embed(self.latents, self.timestep, self.text, self.conditions)

    def answered(self, tokens: Tokens) -> Tensor:
        """What leaves the trunk to an answer `(B or 2·B, C, f, h, w)`.

        Denoisers with learned variance predict it in further channels, which no sampler here uses.
        """
        return self.denoiser.head(tokens)[:, : self.latents.shape[1]]

    def computed(self) -> Tensor:
        """The whole network's answer."""
        return self.answered(self.denoiser.trunk(self.tokens()))

    def batches(self) -> tuple[DenoiserCall, ...]:
        """This call, or its halves where they do not fit together: what may be computed at once, in order."""
        return (self.unguided(), self.conditional()) if self.guided and self.apart else (self,)

    def conditional(self) -> DenoiserCall:
        """The second half of a guided call, as a call that is not guided."""
        return self._part(slice(self.latents.shape[0] // 2, None))

    def unguided(self) -> DenoiserCall:
        """The first half of a guided call, as a call that is not guided."""
        return self._part(slice(self.latents.shape[0] // 2))

    def _part(self, samples: slice) -> DenoiserCall:
        return replace(
            self,
            denoiser=self.model,  # what was prepared is for the whole batch
            latents=self.latents[samples],
            timestep=self.timestep[samples],
            text=[replace(part, states=part.states[samples], mask=part.mask[samples]) for part in self.text],
            conditions={name: value[samples] for name, value in self.conditions.items()},
            guided=False,
        )


Predict = Callable[[DenoiserCall], "Tensor"]
"""Answers a call: the network itself, or a step cache in front of it."""


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What a step cache did in a run.

    Attributes:
        skipped: steps that it answered without all of the network, in order.
        total: steps of the run.
        error: how far, relative to the network's own answer, it believes to have been off at the worst of them; 0
            when nothing was skipped.
    """

    skipped: tuple[int, ...]
    total: int
    error: float

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {"skipped": list(self.skipped), "steps": self.total, "estimated_error": round(self.error, 6)}

    def __str__(self) -> str:
        if not self.skipped:
            return f"skipped none of {self.total} steps"
        which = ", ".join(str(index) for index in self.skipped)
        return f"skipped {len(self.skipped)} of {self.total} steps ({which}); estimated error {self.error:.1%}"


class StepCache(Protocol):
    """Answers some calls of a run from what earlier steps computed. One instance serves one run at a time."""

    innermost: bool
    """Looks into the network, so that no other cache can stand between: it never asks `then`."""

    def begin(self, denoiser: Denoiser, total: int) -> None:
        """A run of `total` steps begins; what was remembered of another one is forgotten.

        Raises:
            InvalidRequest: this denoiser does not have what the cache looks at.
        """
        ...

    def predict(self, call: DenoiserCall, then: Predict) -> Tensor:
        """The answer to a call: its own, or that of `then`, with the same shape as `then` would give."""
        ...

    def report(self) -> CacheReport:
        """What was skipped since `begin`."""
        ...


@runtime_checkable
class CacheMemory(Protocol):
    """Optional capability of a step cache: what it remembers between steps, so that a run can go on in the middle.

    A run with a cache that cannot do this starts its denoising anew after an interruption.
    """

    def remembered(self) -> Mapping[str, Tensor]:
        """Everything that later steps depend on, and what `report` will say."""
        ...

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from what `remembered` gave, after `begin` with the same arguments."""
        ...


@runtime_checkable
class KeepsTokens(Protocol):
    """Optional capability of a step cache: says how much it keeps on the device, for who plans."""

    def tokens_kept(self) -> float:
        """How many times the size of the video's tokens `(B, S, D)` it keeps from step to step."""
        ...


@runtime_checkable
class ShowsChange(Protocol):
    """Optional capability of a denoiser: shows cheaply how much its trunk will see change from step to step."""

    def probe(self, tokens: Tokens) -> Tensor:
        """The first block's normalised and modulated video input `(B, S, D)`."""
        ...


@runtime_checkable
class SplitsTrunk(Protocol):
    """Optional capability of a denoiser: `trunk(tokens)` is `rest(first(tokens))`."""

    def first(self, tokens: Tokens) -> Tokens:
        """The first block alone."""
        ...

    def rest(self, tokens: Tokens) -> Tokens:
        """All other blocks and the final norms."""
        ...
