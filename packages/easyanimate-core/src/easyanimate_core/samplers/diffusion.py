"""Samplers of discrete diffusion, for models before V5.1, over diffusers' schedulers.

All compute a step in float32 and give latents back in the prediction's dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.interfaces import Schedule
from easyanimate_core.samplers.options import (
    DdimOptions,
    DiffusionOptions,
    DpmSolverOptions,
    EulerAncestralOptions,
    EulerOptions,
    LcmOptions,
)
from easyanimate_core.samplers.process import VariancePreserving
from easyanimate_core.samplers.strength import first_step, given

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Generator, Tensor

__all__ = ["Ddim", "Diffusion", "DpmSolver", "Euler", "EulerAncestral", "Lcm"]

S = TypeVar("S")

# What configs record beside what a sampler here can be told. Diffusers before 0.32 does not know all of it.
_RECORDED: Final = frozenset(
    {
        "thresholding", "dynamic_thresholding_ratio", "sample_max_value", "variance_type", "use_exponential_sigmas",
        "use_beta_sigmas", "use_flow_sigmas", "flow_shift", "sigma_min", "sigma_max",
    }
)  # fmt: skip


def _process_of(options: DiffusionOptions) -> VariancePreserving:
    """The noise process that the options describe."""
    return VariancePreserving(
        options.num_train_timesteps,
        beta_start=options.beta_start,
        beta_end=options.beta_end,
        beta_schedule=options.beta_schedule,
        prediction=options.prediction_type,
        zero_terminal_snr=getattr(options, "rescale_betas_zero_snr", False),
    )


class Diffusion(Generic[S]):
    """What the samplers of this module share: a schedule, a start, and steps over a scheduler of diffusers.

    Args:
        options: of the noise process.
        scheduler: takes the steps.
    """

    def __init__(self, options: DiffusionOptions, scheduler: S) -> None:
        self.process = _process_of(options)
        self._scheduler: Any = scheduler
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
        self._scheduler.set_timesteps(steps)
        self._seek(self._start)
        return Schedule(self._scheduler.timesteps[self._start :].float(), self._start)

    def begin(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        """Latents at the first step: noise of the strength that the sampler starts from, or noised clean latents.

        Args:
            noise: `(B, C, f, h, w)`, unit normal.
            clean: the same shape; needed when the schedule's strength is below 1.

        Raises:
            InvalidRequest: `clean` is missing.
        """
        if self._start == 0:
            return noise * float(self._scheduler.init_noise_sigma)
        return self.renoise(given(clean), noise, 0)

    def renoise(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Clean latents with unit noise at the level before step `index`; see `interfaces.Renoises`."""
        at = self._start + index
        if at >= len(self._scheduler.timesteps):
            return clean
        level = self._scheduler.timesteps[at].expand(noise.shape[0])
        return self.process.add_noise(clean, noise, level.to(clean.device))

    def scale_input(self, latents: Tensor, index: int) -> Tensor:
        """The latents themselves: the process keeps their variance."""
        return latents

    def step(
        self,
        prediction: Tensor,
        index: int,
        latents: Tensor,
        *,
        generator: Generator | Sequence[Generator] | None = None,
    ) -> Tensor:
        """Latents at step `index` of the schedule to the next, in the prediction's dtype."""
        self._seek(at := self._start + index)
        moved = self._move(prediction.float(), self._scheduler.timesteps[at], latents.float(), _drawn_from(generator))
        return moved.to(prediction.dtype)

    def _move(self, prediction: Tensor, timestep: Tensor, latents: Tensor, generator: Any) -> Tensor:
        """One step of the scheduler, in float32."""
        moved: Tensor = self._scheduler.step(prediction, timestep, latents, generator=generator, return_dict=False)[0]
        return moved

    def _seek(self, at: int) -> None:
        """Make `at` the step that the scheduler takes next, with what is remembered of earlier ones."""

    def remembered(self) -> Mapping[str, Tensor]:
        """Nothing: a step depends on its index, the latents and what it draws."""
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Nothing to do: `step` goes to any index."""


class _Counting(Diffusion[S]):
    """Over schedulers that count their steps."""

    def _seek(self, at: int) -> None:
        if self._scheduler.step_index == at:
            return
        memory = self.remembered()
        self._scheduler.set_timesteps(self._steps)
        self._scheduler.set_begin_index(at)
        self.recall(memory)

    def _sigma(self, index: int, like: Tensor) -> Tensor | None:
        """σ, noise over data, before step `index` of the schedule; `None` after the last step."""
        at = self._start + index
        return None if at >= len(self._scheduler.timesteps) else self._scheduler.sigmas[at].to(like)


class _Exploding(_Counting[S]):
    """Latents between steps are `x₀ + σ·noise`: not of unit variance, and scaled before the denoiser sees them."""

    def scale_input(self, latents: Tensor, index: int) -> Tensor:
        """Latents `x₀ + σ·noise` of step `index`, divided by √(σ² + 1)."""
        self._seek(at := self._start + index)
        scaled: Tensor = self._scheduler.scale_model_input(latents, self._scheduler.timesteps[at])
        return scaled

    def renoise(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Clean latents with unit noise at the level before step `index`; see `interfaces.Renoises`."""
        sigma = self._sigma(index, noise)
        return clean if sigma is None else clean + sigma * noise


class Ddim(Diffusion[DDIMScheduler]):
    """Song et al., "Denoising Diffusion Implicit Models" (2020), equation 12."""

    def __init__(self, options: DdimOptions | None = None) -> None:
        self.options = options or DdimOptions()
        super().__init__(self.options, DDIMScheduler(**self.options.model_dump(exclude={"eta", *_RECORDED})))

    def _move(self, prediction: Tensor, timestep: Tensor, latents: Tensor, generator: Any) -> Tensor:
        moved: Tensor = self._scheduler.step(
            prediction, timestep, latents, eta=self.options.eta, generator=generator, return_dict=False
        )[0]
        return moved


class Euler(_Exploding[EulerDiscreteScheduler]):
    """Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), algorithm 2 without
    churn and correction: straight steps along the probability flow."""

    def __init__(self, options: EulerOptions | None = None) -> None:
        self.options = options or EulerOptions()
        super().__init__(self.options, EulerDiscreteScheduler(**self.options.model_dump(exclude=set(_RECORDED))))


class EulerAncestral(_Exploding[EulerAncestralDiscreteScheduler]):
    """Euler steps to a lower level than the next, and new noise up to it. Draws at every step."""

    def __init__(self, options: EulerAncestralOptions | None = None) -> None:
        self.options = options or EulerAncestralOptions()
        super().__init__(self.options, EulerAncestralDiscreteScheduler(**self.options.model_dump()))


class Lcm(_Counting[LCMScheduler]):
    """Luo et al., "Latent Consistency Models" (2023), algorithm 3: predicts clean latents at once, and noises them
    again to the next of a few levels. Draws at every step but the last."""

    def __init__(self, options: LcmOptions | None = None) -> None:
        self.options = options or LcmOptions()
        super().__init__(self.options, LCMScheduler(**self.options.model_dump(exclude=set(_RECORDED))))

    def schedule(self, steps: int, *, strength: float = 1.0) -> Schedule:
        """Prepare a run of some of the distillation's steps; see `Diffusion.schedule`.

        Raises:
            InvalidRequest: an argument is out of range, or the distillation had fewer steps.
        """
        if steps > (most := self.options.original_inference_steps):
            raise InvalidRequest(
                f"'lcm' is asked for '{steps}' steps, and has {most} to choose from",
                "A model that was distilled for it needs 2 to 8.",
            )
        return super().schedule(steps, strength=strength)


class DpmSolver(_Counting[DPMSolverMultistepScheduler]):
    """Lu et al., "DPM-Solver++" (2022), algorithm 2: several predictions make a step of higher order."""

    def __init__(self, options: DpmSolverOptions | None = None) -> None:
        self.options = options or DpmSolverOptions()
        recorded = set(_RECORDED)
        if self.options.lambda_min_clipped is None:
            recorded.add("lambda_min_clipped")
        super().__init__(self.options, DPMSolverMultistepScheduler(**self.options.model_dump(exclude=recorded)))

    def renoise(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Clean latents with unit noise at the level before step `index`; see `interfaces.Renoises`."""
        sigma = self._sigma(index, noise)
        return clean if sigma is None else (clean + sigma * noise) / (sigma**2 + 1).sqrt()

    def remembered(self) -> Mapping[str, Tensor]:
        """The last predictions, `(order, B, C, f, h, w)` in float32, oldest first, and how many of them count."""
        outputs = [output for output in self._scheduler.model_outputs if output is not None]
        if not outputs:
            return {}
        return {"outputs": torch.stack(outputs), "counting": torch.tensor(self._scheduler.lower_order_nums)}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from what `remembered` gave, after `schedule` with the same arguments."""
        outputs = list(memory["outputs"]) if memory else []
        lacking: list[Tensor | None] = [None] * (self.options.solver_order - len(outputs))
        self._scheduler.model_outputs = lacking + outputs
        self._scheduler.lower_order_nums = int(memory["counting"]) if memory else 0


def _drawn_from(generator: Generator | Sequence[Generator] | None) -> Any:
    """One generator, or a list of one per sample, as diffusers draws from them."""
    return generator if generator is None or isinstance(generator, torch.Generator) else list(generator)
