"""Pseudo numerical methods: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds" (2022)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from diffusers import PNDMScheduler

from easyanimate_core.interfaces import Schedule
from easyanimate_core.samplers.diffusion import Diffusion
from easyanimate_core.samplers.options import PndmOptions
from easyanimate_core.samplers.strength import first_step, given

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["Pndm"]

_RUNGE_KUTTA = 4


class Pndm(Diffusion[PNDMScheduler]):
    """Linear multistep over four predictions, after a start that repeats a step or takes Runge-Kutta's.

    Both starts ask the denoiser more often than once a step: a schedule of n steps has n + 1 or n + 9 timesteps. With
    a strength below 1 the start is made where the run begins. A run of fewer than four steps never uses Runge-Kutta.
    """

    def __init__(self, options: PndmOptions | None = None) -> None:
        self.options = options or PndmOptions()
        super().__init__(self.options, self._built(skip=self.options.skip_prk_steps))
        self._partial = False

    def schedule(self, steps: int, *, strength: float = 1.0) -> Schedule:
        """Prepare a run over the last `int(steps·strength)` of `steps` levels.

        Args:
            steps: at least 1.
            strength: 0 (keep the clean latents) … 1 (start from pure noise).

        Raises:
            InvalidRequest: an argument is out of range.
        """
        self._start = 0
        skipped = first_step(steps, strength)
        levels = self._levels(steps)[skipped:]
        skip = self.options.skip_prk_steps or len(levels) < _RUNGE_KUTTA
        self._scheduler = self._built(skip=skip)
        self._scheduler.set_timesteps(steps)
        half = self.options.num_train_timesteps // steps // 2
        first, rest = ([], _repeated(levels)) if skip else (_runge_kutta(levels, half), levels[_RUNGE_KUTTA - 1 :])
        self._scheduler.prk_timesteps, self._scheduler.plms_timesteps = first, rest
        self._scheduler.timesteps = torch.tensor([*first, *rest], dtype=torch.long)
        self._partial = skipped > 0
        return Schedule(self._scheduler.timesteps.float(), skipped)

    def begin(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        """The noise itself, or clean latents noised to the first step's level; see `Diffusion.begin`."""
        return self.renoise(given(clean), noise, 0) if self._partial else noise

    def _built(self, *, skip: bool) -> PNDMScheduler:
        return PNDMScheduler(**{**self.options.model_dump(), "skip_prk_steps": skip})

    def _levels(self, steps: int) -> list[int]:
        """Timesteps without repetitions, first step first."""
        plain = self._built(skip=True)
        plain.set_timesteps(steps)
        repeated: list[int] = plain.timesteps.tolist()
        return repeated[:1] + repeated[2:]

    def _move(self, prediction: Tensor, timestep: Tensor, latents: Tensor, generator: Any) -> Tensor:
        # A tensor would be changed in place by the scheduler's arithmetic on timesteps.
        moved: Tensor = self._scheduler.step(prediction, int(timestep), latents, return_dict=False)[0]
        return moved

    def remembered(self) -> Mapping[str, Tensor]:
        """Steps taken, the last predictions `(≤4, B, C, f, h, w)`, and what a step in several parts has gathered."""
        scheduler = self._scheduler
        memory = {"taken": torch.tensor(scheduler.counter)}
        if scheduler.ets:
            memory["predictions"] = torch.stack(scheduler.ets)
        if scheduler.cur_sample is not None:
            memory["before"] = scheduler.cur_sample
        if isinstance(scheduler.cur_model_output, torch.Tensor):
            memory["gathered"] = scheduler.cur_model_output
        return memory

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from what `remembered` gave, after `schedule` with the same arguments."""
        self._scheduler.counter = int(memory["taken"])
        self._scheduler.ets = list(memory["predictions"]) if "predictions" in memory else []
        self._scheduler.cur_sample = memory.get("before")
        self._scheduler.cur_model_output = memory.get("gathered", 0)


def _repeated(levels: list[int]) -> list[int]:
    """The second level twice: the first step is taken again with what the denoiser says at its end."""
    return levels[:1] + levels[1:2] + levels[1:]


def _runge_kutta(levels: list[int], half: int) -> list[int]:
    """Where three steps of the classical fourth-order method ask: at the beginning, twice in the middle, at the end."""
    asked = []
    for begin, end in pairwise(levels[:_RUNGE_KUTTA]):
        asked += [begin, end + half, end + half, end]
    return asked
