"""The sampler of flow matching, over diffusers' scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers import FlowMatchEulerDiscreteScheduler

from easyanimate_core.interfaces import Schedule
from easyanimate_core.samplers.options import FlowOptions
from easyanimate_core.samplers.process import FlowMatching
from easyanimate_core.samplers.strength import first_step, given

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Generator, Tensor

__all__ = ["Flow"]

# Released models were trained and sampled with this shift at every size, whatever their config says.
_MU = 1.0


class Flow:
    """Euler steps along the straight lines of flow matching.

    The denoiser predicts `v = noise − x₀`; a step is `x ← x + (σ' − σ)·v`, computed in float32 and cast back to the
    prediction's dtype.
    """

    def __init__(self, options: FlowOptions | None = None) -> None:
        self.options = options or FlowOptions()
        self.process = FlowMatching()
        self._scheduler = FlowMatchEulerDiscreteScheduler(**self.options.model_dump())
        self._steps = 0
        self._start = 0

    def schedule(self, steps: int, *, strength: float = 1.0) -> Schedule:
        """Prepare a run of `steps` steps, of which the last `int(steps·strength)` are taken.

        Args:
            steps: at least 1.
            strength: 0 (keep the clean latents) … 1 (start from pure noise).

        Raises:
            InvalidRequest: an argument is out of range.
        """
        self._steps, self._start = steps, first_step(steps, strength)
        self._rewind(self._start)
        return Schedule(self._scheduler.timesteps[self._start :].clone(), self._start)

    def begin(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        """Latents at the first step: the noise itself, or clean latents noised to the first step's level.

        Args:
            noise: `(B, C, f, h, w)`, unit normal.
            clean: the same shape; needed when the schedule's strength is below 1.

        Raises:
            InvalidRequest: `clean` is missing.
        """
        if self._start == 0:
            return noise
        return self.renoise(given(clean), noise, 0)

    def renoise(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Clean latents with unit noise at the level before step `index`; see `interfaces.Renoises`."""
        # One σ more than steps: the last, 0, leaves the clean latents as they are.
        level = self._scheduler.sigmas[self._start + index].expand(noise.shape[0])
        return self.process.add_noise(clean, noise, level)

    def scale_input(self, latents: Tensor, index: int) -> Tensor:
        """The latents themselves: flow matching keeps their scale."""
        return latents

    def step(
        self,
        prediction: Tensor,
        index: int,
        latents: Tensor,
        *,
        generator: Generator | Sequence[Generator] | None = None,
    ) -> Tensor:
        """Latents at step `index` of the schedule to the next, in the prediction's dtype.

        Any step may be asked for, so that an interrupted run can go on in the middle.
        """
        at = self._start + index
        if self._scheduler.step_index != at:
            self._rewind(at)
        stepped = self._scheduler.step(
            prediction, self._scheduler.timesteps[at], latents, generator=generator, return_dict=False
        )
        moved: Tensor = stepped[0]
        return moved

    def remembered(self) -> Mapping[str, Tensor]:
        """Nothing: a step depends on its index and the latents alone."""
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Nothing to do: `step` goes to any index."""

    def _rewind(self, index: int) -> None:
        """Make `index` the step that the scheduler takes next."""
        self._scheduler.set_timesteps(self._steps, mu=_MU if self.options.use_dynamic_shifting else None)
        self._scheduler.set_begin_index(index)
