"""Contracts of what steps noise towards data: the slot `samplers`, and the noise processes that training shares.

Nothing here imports torch at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["NoiseProcess", "Renoises", "Sampler", "SamplerState", "Schedule"]


class NoiseProcess(Protocol):
    """How data becomes noise; shared by samplers and training objectives."""

    def add_noise(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Noised data at level(s) of noise `(B,)`."""
        ...

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """What the denoiser should predict there."""
        ...

    def weight(self, level: Tensor) -> Tensor:
        """Weight `(B,)` of the squared error there."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of one run.

    Attributes:
        timesteps: `(n,)` float32, exact values on the model's 0…1000 scale, first step first.
        start: steps skipped at the front when `strength` is below 1.
    """

    timesteps: Tensor
    start: int = 0

    def __len__(self) -> int:
        return int(self.timesteps.shape[0])


class Sampler(Protocol):
    """Steps noise towards latents. One instance serves one run at a time; `schedule` resets it."""

    process: NoiseProcess

    def schedule(self, steps: int, *, strength: float = 1.0) -> Schedule:
        """Prepare a run of `steps` steps, of which the last `int(steps·strength)` are taken."""
        ...

    def begin(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        """Initial latents from unit noise, and from clean latents when strength is below 1."""
        ...

    def scale_input(self, latents: Tensor, index: int) -> Tensor:
        """Latents as the denoiser wants to see them at step `index`."""
        ...

    def step(
        self,
        prediction: Tensor,
        index: int,
        latents: Tensor,
        *,
        generator: Generator | Sequence[Generator] | None = None,
    ) -> Tensor:
        """One step from latents `(B, C, f, h, w)` at step `index` to the next.

        A sampler that draws noise takes it from the generator; from one per sample where a sequence of `B` is given,
        so that a sample does not depend on its neighbours.
        """
        ...


@runtime_checkable
class SamplerState(Protocol):
    """Optional capability of a sampler: what it remembers between steps, so that a run can go on in the middle.

    A run whose sampler cannot do this starts its denoising anew after an interruption.
    """

    def remembered(self) -> Mapping[str, Tensor]:
        """Everything that later steps depend on besides latents and index; empty when that is nothing."""
        ...

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from what `remembered` gave, after `schedule` with the same arguments."""
        ...


@runtime_checkable
class Renoises(Protocol):
    """Optional capability of a sampler: clean latents as they would be in the middle of a run."""

    def renoise(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Clean latents `(B, C, f, h, w)` with unit noise at the level before step `index`.

        At `len(schedule)`, after the last step, these are the clean latents themselves.
        """
        ...
