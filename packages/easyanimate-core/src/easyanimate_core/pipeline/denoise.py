"""From noise to latents, step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from easyanimate_core.data import State, wire
from easyanimate_core.errors import InvalidPlan
from easyanimate_core.events import Step
from easyanimate_core.pipeline.decode import to_unit_range
from easyanimate_core.pipeline.guidance import combine, guide
from easyanimate_core.pipeline.origin import begin, blend
from easyanimate_core.pipeline.resuming import keep_step, last_step
from easyanimate_core.pipeline.settled import Settled

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import TextEmbedding
    from easyanimate_core.interfaces import Toolbox

__all__ = ["Denoise", "OnStep"]

_LATER_DRAWS = 1 << 62

OnStep = Callable[[int, "Tensor"], None]
"""Called after every step with its index and the latents `(B, C, f, h, w)`."""


class Denoise:
    """Runs the sampler over the denoiser.

    With a guidance scale above 1 every step runs both halves as one batch, the unguided one first; at 1 the
    unguided half is not run at all. Where the toolbox keeps snapshots, a run goes on after its last kept step.

    Args:
        on_step: sees the latents after every step; for tests.
    """

    name = "denoise"
    needs = frozenset({"text", "latents"})
    gives = frozenset({"latents"})
    uses: tuple[str, ...] = ("denoiser",)

    def __init__(self, *, on_step: OnStep | None = None) -> None:
        self.on_step = on_step

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """Noise in `latents` to samples in `latents`.

        Raises:
            InvalidPlan: guidance is on and there is no negative embedding, or latents are missing.
            Cancelled: someone asked to stop; checked before every step, and by `run` before every block.
        """
        settled, sampler = Settled.of(state.request), toolbox.sampler
        guided = settled.guided
        if state.latents is None or (guided and not state.negative_text):
            raise InvalidPlan(
                "denoising lacks " + ("latents" if state.latents is None else "the embedding of the negative prompt"),
                "Let the stages 'noise' and 'encode_text' run, or put both embeddings into the state.",
            )
        text = combine(state.negative_text, state.text) if guided else state.text
        origin = state.origin
        schedule = sampler.schedule(settled.steps, strength=1.0 if origin is None else origin.strength)
        # Later draws of a stochastic sampler must not repeat the noise that the run starts from.
        generator = torch.Generator("cpu").manual_seed(settled.seeds[0] ^ _LATER_DRAWS)
        latents = begin(sampler, state.latents, origin)
        total = len(schedule)
        done, latents = last_step(self.name, toolbox, latents, generator, total)
        for index in range(done, total):
            toolbox.cancel.check()
            inputs = sampler.scale_input(latents, index)
            progress = index / max(total - 1, 1)
            prediction = _predict(state, toolbox, inputs, schedule.timesteps[index], text, guided, progress)
            if guided:
                prediction = guide(prediction, settled.guidance, rescaled=state.request.guidance_rescale)
            # Between steps latents live in the loop's dtype, as they did when released models were tuned.
            latents = sampler.step(prediction, index, latents, generator=generator).to(toolbox.dtype)
            latents = blend(sampler, latents, state.latents, origin, index + 1)
            if self.on_step is not None:
                self.on_step(index, latents)
            keep_step(self.name, toolbox, latents, generator, index + 1, total)
            toolbox.events.emit(Step(index, total, self.name, preview=partial(_preview, toolbox, latents)))
        return state.with_(latents=latents)


def _predict(
    state: State,
    toolbox: Toolbox,
    latents: Tensor,
    timestep: Tensor,
    text: tuple[TextEmbedding, ...],
    guided: bool,
    progress: float,
) -> Tensor:
    """What the denoiser says about `(B, C, f, h, w)`: `(B, C, f, h, w)`, or `(2·B, …)` when guided."""
    denoiser = toolbox.denoiser
    conditions = wire(denoiser.inlets, state.conditions, latents, progress=progress)
    if guided:
        unguided = wire(denoiser.inlets, state.conditions, latents, progress=progress, unconditional=True)
        conditions = {name: torch.cat([unguided[name], value]) for name, value in conditions.items()}
        latents = torch.cat([latents, latents])
    # Rounding to the loop's dtype (in bf16, 992.4 becomes 992) is part of how released models were sampled.
    rounded = timestep.to(device=latents.device, dtype=latents.dtype).expand(latents.shape[0])
    prediction = denoiser.head(denoiser.trunk(denoiser.embed(latents, rounded, text, conditions)))
    # Denoisers with learned variance predict it in further channels, which no sampler here uses.
    return prediction[:, : latents.shape[1]]


def _preview(toolbox: Toolbox, latents: Tensor) -> Tensor:
    """The first sample as it would look now, `(3, F, H, W)` in 0…1; costs a whole decode."""
    with torch.no_grad(), toolbox.offload.using("vae"):
        return to_unit_range(toolbox.vae.decode_video(latents[:1]))[0]
