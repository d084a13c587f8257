"""Euler steps along the lines of flow matching, spaced by a power."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.interfaces import Schedule
from easyanimate_core.samplers.process import FlowMatching

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from easyanimate_cinema.options import PowerOptions

__all__ = ["Power"]


class Power:
    """Signs `Sampler`, `SamplerState` and `Renoises` of `easyanimate_core.interfaces` by having their members.

    The denoiser predicts the velocity v = noise − x₀, and a step is x ← x + (σ' − σ)·v.
    """

    def __init__(self, options: PowerOptions) -> None:
        self.options = options
        self.process = FlowMatching()
        self._sigmas = torch.ones(1)

    def schedule(self, steps: int, *, strength: float = 1.0) -> Schedule:
        """`steps` levels from noise to data, of which the last `int(steps·strength)` are taken."""
        start = steps - int(steps * strength)
        self._sigmas = ((1 - torch.linspace(0, 1, steps + 1)) ** self.options.power)[start:]
        return Schedule(self._sigmas[:-1] * 1000, start)

    def begin(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        """The noise, or clean latents noised to the first level."""
        if self._sigmas[0] == 1:
            return noise
        if clean is None:
            raise InvalidRequest("strength is below 1, and there is no video to start from", "Give a source video.")
        return self.renoise(clean, noise, 0)

    def renoise(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Clean latents at the level before step `index`: what keeping parts of a video needs."""
        return self.process.add_noise(clean, noise, self._sigmas[index].expand(noise.shape[0]))

    def scale_input(self, latents: Tensor, index: int) -> Tensor:
        """The latents themselves."""
        return latents

    def step(self, prediction: Tensor, index: int, latents: Tensor, *, generator: Generator | None = None) -> Tensor:
        """From level `index` to the next."""
        return latents + (self._sigmas[index + 1] - self._sigmas[index]) * prediction

    def remembered(self) -> Mapping[str, Tensor]:
        """Nothing: a step depends on its index and the latents alone."""
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Nothing to do."""
