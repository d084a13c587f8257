"""The noise that a run starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easyanimate_core.pipeline.settled import Settled

if TYPE_CHECKING:
    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["DrawNoise"]


class DrawNoise:
    """Draws unit noise on the CPU, so that a seed means the same on every device.

    Every sample of a batch has its own seed and generator: it equals the same sample made alone.
    """

    name = "noise"
    needs: frozenset[str] = frozenset()
    gives = frozenset({"latents"})
    uses: tuple[str, ...] = ()

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """Fills `latents`, `(B, C, f, h, w)` in the loop's dtype."""
        _, *shape = toolbox.vae.compression.latent_shape(state.geometry)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in Settled.of(state.request).seeds]
        samples = [torch.randn(shape, generator=generator, dtype=toolbox.dtype) for generator in generators]
        return state.with_(latents=torch.stack(samples).to(toolbox.device))
