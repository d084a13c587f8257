"""The contract of the slot `samplers`."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from easyanimate_core.errors import EasyAnimateError
from easyanimate_core.interfaces import Renoises, SamplerState
from easyanimate_core.samplers.process import VariancePreserving
from easyanimate_core.testing.contracts.contract import Contract, can, close, draw, ensure, rule

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import Sampler

__all__ = ["SamplerContract"]

_SHAPE = (2, 3, 2, 4, 4)


class SamplerContract(Contract):
    """A `Sampler`: schedule, strength, resuming, and arrival at clean data.

    Attributes:
        steps: of the runs that are tried, at least 4.
        residual: root mean square, in units of the data's deviation, of what a run with a perfect denoiser may leave
            undone. Schedules that stop a little before clean data leave a few hundredths.
    """

    slot: ClassVar[str] = "samplers"
    steps: ClassVar[int] = 8
    residual: ClassVar[float] = 0.05

    def level(self, timestep: Tensor) -> Tensor:
        """The level of noise, as the sampler's process counts it, at a timestep of its schedule.

        The timestep itself for `VariancePreserving`, else σ = timestep / 1000; override it for a process of your own.
        """
        process = self.create().process
        return timestep if isinstance(process, VariancePreserving) else timestep / 1000

    def run(self, sampler: Sampler, noise: Tensor, clean: Tensor, *, strength: float = 1.0, seed: int = 0) -> Tensor:
        """Latents after a run with a perfect denoiser, which knows the clean data `(B, C, f, h, w)`."""
        schedule = sampler.schedule(self.steps, strength=strength)
        generator = torch.Generator().manual_seed(seed)
        latents = sampler.begin(noise, clean if strength < 1 else None)
        for index in range(len(schedule)):
            latents = self._stepped(sampler, schedule.timesteps[index], index, latents, clean, generator)
        return latents

    def _stepped(
        self, sampler: Sampler, timestep: Tensor, index: int, latents: Tensor, clean: Tensor, generator: torch.Generator
    ) -> Tensor:
        seen = sampler.scale_input(latents, index)
        level = self.level(timestep).expand(clean.shape[0])
        part, unit = (
            sampler.process.add_noise(*pair, level)
            for pair in ((clean, torch.zeros_like(clean)), (torch.zeros_like(clean), torch.ones_like(clean)))
        )
        prediction = sampler.process.target(clean, (seen - part) / unit, level)
        return sampler.step(prediction, index, latents, generator=generator)

    @rule
    def test_schedule_is_steps_on_the_models_scale(self) -> None:
        """A schedule is `(n,)` float32 timesteps in 0…1000, the noisiest first, and starts at 0 without strength.

        If this fails: give `Schedule` the exact timesteps that the denoiser is to see, not indices and not σ.
        """
        schedule = self.create().schedule(self.steps)
        times = schedule.timesteps
        ensure(times.ndim == 1 and len(times) >= 1, f"timesteps have the shape '{tuple(times.shape)}'")
        ensure(times.dtype == torch.float32, f"timesteps are '{times.dtype}'")
        ensure(times.min() >= 0 and times.max() <= 1000, f"timesteps go from '{times.min():g}' to '{times.max():g}'")
        ensure(times[0] == times.max(), f"the first timestep is '{times[0]:g}', and there is {times.max():g}")
        ensure(schedule.start == 0, f"the schedule starts at '{schedule.start}'")

    @rule
    def test_schedule_resets(self) -> None:
        """A schedule does not depend on what the instance did before.

        If this fails: `schedule` must set all that `step` changes.
        """
        sampler: Sampler = self.create()
        noise, clean = draw(*_SHAPE), draw(*_SHAPE, seed=1)
        first = self.run(sampler, noise, clean)
        sampler.schedule(self.steps + 3, strength=0.5)
        close(self.run(sampler, noise, clean), first, 0, "the second run")

    @rule
    def test_last_step_reaches_clean_data(self) -> None:
        """With a perfect denoiser the last step ends at clean data.

        If this fails: the schedule lacks its last interval, or `step` and `process` disagree on what is predicted. If
        your process does not count levels as timestep / 1000, override `level`.
        """
        clean = draw(*_SHAPE, seed=1)
        ended = self.run(self.create(), draw(*_SHAPE), clean)
        left = (ended - clean).square().mean().sqrt().item()
        ensure(left <= self.residual, f"what is left is '{left:.3g}' (allowed: {self.residual:g})")

    @rule
    def test_strength_takes_the_last_steps(self) -> None:
        """With a strength below 1 the last steps are taken, to the same end, and `start` says how many are skipped.

        If this fails: take the last `int(steps·strength)` steps of the schedule that strength 1 gives. A sampler that
        asks the denoiser more than once a step may begin in its own way, but no noisier than there.
        """
        sampler: Sampler = self.create()
        whole, part = sampler.schedule(self.steps), sampler.schedule(self.steps, strength=0.5)
        skipped = self.steps - self.steps // 2
        ensure(0 < len(part) < len(whole), f"strength 0.5 takes '{len(part)}' of {len(whole)} steps")
        ensure(part.start == skipped, f"start is '{part.start}' where {skipped} of {self.steps} steps are skipped")
        if len(whole) == self.steps:
            close(part.timesteps, whole.timesteps[skipped:], 0, "the schedule of strength 0.5")
        ends = part.timesteps[-1] == whole.timesteps[-1] and part.timesteps[0] < whole.timesteps[0]
        ensure(ends, f"it goes from '{part.timesteps[0]:g}' to '{part.timesteps[-1]:g}'")

    @rule
    def test_strength_0_returns_the_input(self) -> None:
        """With strength 0 there are no steps, and a run begins with the clean latents themselves.

        If this fails: `begin` must noise clean latents to the level before the first step that is taken: here none.
        """
        sampler: Sampler = self.create()
        noise, clean = draw(*_SHAPE), draw(*_SHAPE, seed=1)
        ensure(len(sampler.schedule(self.steps, strength=0.0)) == 0, "there are steps")
        close(sampler.begin(noise, clean), clean, 1e-6, "what the run begins with")

    @rule
    def test_a_part_of_a_schedule_needs_clean_latents(self) -> None:
        """With a strength below 1 and nothing to start from, `begin` raises an error of the SDK.

        If this fails: raise `easyanimate_core.errors.InvalidRequest` when `clean` is `None`.
        """
        sampler: Sampler = self.create()
        sampler.schedule(self.steps, strength=0.5)
        try:
            sampler.begin(draw(*_SHAPE))
        except EasyAnimateError:
            return
        ensure(False, "no error")

    @rule
    def test_same_seed_same_result(self) -> None:
        """Two instances with the same noise and generator give the same latents, bit by bit.

        If this fails: draw from the `generator` that `step` is given, and from nothing else.
        """
        noise, clean = draw(*_SHAPE), draw(*_SHAPE, seed=1)
        one, other = (self.run(self.create(), noise, clean, seed=5) for _ in range(2))
        close(one, other, 0, "the second run")

    @rule
    def test_samples_do_not_meet(self) -> None:
        """A sample of a batch does not depend on the others.

        If this fails: look for means, norms or thresholds that are taken over the batch.
        """
        noise, clean = draw(*_SHAPE), draw(*_SHAPE, seed=1)
        other_noise, other_clean = (torch.cat([x[:1], 3 * x[1:] + 1]) for x in (noise, clean))
        one = self.run(self.create(), noise, clean)
        two = self.run(self.create(), other_noise, other_clean)
        close(two[:1], one[:1], 1e-6, "the first sample, beside another second one,")

    @rule
    def test_a_step_leaves_its_inputs_alone(self) -> None:
        """A step changes neither the latents nor the prediction that it is given, and keeps their shape.

        If this fails: look for operations in place (`add_`, `+=`).
        """
        for dtype in (torch.float32, torch.bfloat16):
            sampler: Sampler = self.create()
            sampler.schedule(self.steps)
            latents, prediction = sampler.begin(draw(*_SHAPE).to(dtype)), draw(*_SHAPE, seed=1).to(dtype)
            given = latents.clone(), prediction.clone()
            sampler.scale_input(latents, 0)
            moved = sampler.step(prediction, 0, latents, generator=torch.Generator().manual_seed(0))
            ensure(torch.equal(given[0], latents) and torch.equal(given[1], prediction), "they are changed")
            ensure(moved.shape == latents.shape, f"the shape becomes '{tuple(moved.shape)}'")
            ensure(moved.dtype in (dtype, torch.float32), f"the dtype becomes '{moved.dtype}'")
            ensure(moved.isfinite().all(), "the step gives numbers that are not finite")

    @rule
    def test_a_run_goes_on_in_the_middle(self) -> None:
        """A new instance that recalls what was remembered goes on at any step, bit by bit. Optional: `SamplerState`.

        If this fails: `remembered` must hold everything that later steps depend on besides latents and index.
        """
        noise, clean = draw(*_SHAPE), draw(*_SHAPE, seed=1)
        sampler: Any = self.create()
        if not can(sampler, SamplerState):
            raise unittest.SkipTest("it does not remember: interrupted runs start anew")
        schedule, generator = sampler.schedule(self.steps), torch.Generator().manual_seed(3)
        latents = sampler.begin(noise)
        kept = []
        for index, timestep in enumerate(schedule.timesteps):
            memory = {name: value.clone() for name, value in sampler.remembered().items()}
            kept.append((latents.clone(), generator.get_state(), memory))
            latents = self._stepped(sampler, timestep, index, latents, clean, generator)
        for start in (0, 1, len(schedule) // 2, len(schedule) - 1):
            resumed: Any = self.create()
            resumed.schedule(self.steps)
            now, state, memory = kept[start]
            generator.set_state(state)
            resumed.recall(memory)
            for index in range(start, len(schedule)):
                now = self._stepped(resumed, schedule.timesteps[index], index, now, clean, generator)
            close(now, latents, 0, f"the run that goes on at step {start}")

    @rule
    def test_clean_latents_can_be_noised_to_any_step(self) -> None:
        """`renoise` gives what a run of clean latents has before each step, and after the last. Optional: `Renoises`.

        If this fails: at step 0 of a part of a schedule it is what `begin` gives; after the last step, clean latents.
        """
        sampler: Any = self.create()
        if not can(sampler, Renoises):
            raise unittest.SkipTest("it cannot noise latents in the middle of a run")
        noise, clean = draw(*_SHAPE), draw(*_SHAPE, seed=1)
        schedule = sampler.schedule(self.steps, strength=0.5)
        begun = sampler.begin(noise, clean)
        close(sampler.renoise(clean, noise, 0), begun, 1e-6, "what it gives at step 0")
        close(sampler.renoise(clean, noise, len(schedule)), clean, 1e-6, "what it gives after the last step")
