"""From noise to latents, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from easyanimate_core.data import State, wire
from easyanimate_core.errors import InvalidPlan
from easyanimate_core.events import Step
from easyanimate_core.interfaces import PreparesSteps
from easyanimate_core.pipeline.caching import CacheChain
from easyanimate_core.pipeline.decode import to_unit_range
from easyanimate_core.pipeline.guidance import combine, guide
from easyanimate_core.pipeline.halves import Halves
from easyanimate_core.pipeline.origin import begin, blend
from easyanimate_core.pipeline.resuming import keep_step, last_step
from easyanimate_core.pipeline.settled import Settled
from easyanimate_core.stepping import DenoiserCall

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import TextEmbedding
    from easyanimate_core.interfaces import Denoiser, Toolbox

__all__ = ["Denoise", "OnStep"]

# In the lower half of a seed: the upper one does not count for a generator on the CPU.
_LATER_DRAWS = 0x9E3779B9

OnStep = Callable[[int, "Tensor"], None]
"""Called after every step with its index and the latents `(B, C, f, h, w)`."""


class Denoise:
    """Runs the sampler over the denoiser.

    With a guidance scale above 1 every step runs both halves as one batch, the unguided one first; at 1 the
    unguided half is not run at all. Step caches that the request names may answer instead of the network. Where the
    toolbox keeps snapshots, a run goes on after its last kept step.

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
        if state.latents is None or not state.text or (guided and not state.negative_text):
            lacking = "embedding of the negative prompt" if state.text else "embedding of the prompt"
            raise InvalidPlan(
                "denoising lacks " + ("latents" if state.latents is None else f"the {lacking}"),
                "Let the stages 'noise' and 'encode_text' run, or put both embeddings into the state.",
            )
        text = combine(state.negative_text, state.text) if guided else state.text
        origin = state.origin
        schedule = sampler.schedule(settled.steps, strength=1.0 if origin is None else origin.strength)
        # Later draws of a stochastic sampler must not repeat the noise that the run starts from. Every sample draws for
        # itself: it equals the same sample made alone.
        generators = [torch.Generator("cpu").manual_seed(seed ^ _LATER_DRAWS) for seed in settled.seeds]
        latents = begin(sampler, state.latents, origin)
        total = len(schedule)
        network = Halves(toolbox.events, apart=toolbox.apart).predict
        caches = CacheChain(state.request.step_caches, toolbox.denoiser, total, network)
        # To the device once, not at every step.
        timesteps = schedule.timesteps.to(latents.device)
        prepared = _prepared(toolbox, timesteps, text)
        done, latents = last_step(self.name, toolbox, latents, generators, total, caches)
        for index in range(done, total):
            toolbox.cancel.check()
            inputs = sampler.scale_input(latents, index)
            call = _call(state, toolbox, inputs, timesteps[index], text, guided, (index, total))
            if prepared is not None and call.latents.dtype == toolbox.dtype:
                call = replace(call, denoiser=prepared[index])
            prediction = caches.predict(call)
            if guided:
                prediction = guide(prediction, settled.guidance, rescaled=state.request.guidance_rescale)
            # Between steps latents live in the loop's dtype, as they did when released models were tuned.
            latents = sampler.step(prediction, index, latents, generator=generators).to(toolbox.dtype)
            latents = blend(sampler, latents, state.latents, origin, index + 1)
            if self.on_step is not None:
                self.on_step(index, latents)
            keep_step(self.name, toolbox, latents, generators, index + 1, total, caches)
            toolbox.events.emit(Step(index, total, self.name, preview=partial(_preview, toolbox, latents)))
        if toolbox.attention is not None:
            state = state.noted(attention=str(toolbox.attention))
        return caches.told(state.with_(latents=latents), toolbox.events)


def _prepared(toolbox: Toolbox, timesteps: Tensor, text: tuple[TextEmbedding, ...]) -> Sequence[Denoiser] | None:
    """One denoiser per step that knows what does not depend on the latents, where the model can do that."""
    if not isinstance(toolbox.denoiser, PreparesSteps):
        return None
    return toolbox.denoiser.prepared(timesteps.to(toolbox.dtype), text, toolbox.dtype)


def _call(
    state: State,
    toolbox: Toolbox,
    latents: Tensor,
    timestep: Tensor,
    text: tuple[TextEmbedding, ...],
    guided: bool,
    place: tuple[int, int],
) -> DenoiserCall:
    """What is asked about `(B, C, f, h, w)` at step `place[0]` of `place[1]`."""
    denoiser, (index, total) = toolbox.denoiser, place
    progress = index / total
    conditions = wire(denoiser.inlets, state.conditions, latents, progress=progress)
    if guided:
        unguided = wire(denoiser.inlets, state.conditions, latents, progress=progress, unconditional=True)
        conditions = {name: torch.cat([unguided[name], value]) for name, value in conditions.items()}
        latents = torch.cat([latents, latents])
    # Rounding to the loop's dtype (in bf16, 992.4 becomes 992) is part of how released models were sampled.
    rounded = timestep.to(device=latents.device, dtype=latents.dtype).expand(latents.shape[0])
    return DenoiserCall(
        index, total, denoiser, denoiser, latents, rounded, text, conditions, guided, apart=toolbox.apart
    )


def _preview(toolbox: Toolbox, latents: Tensor) -> Tensor:
    """The first sample as it would look now, `(3, F, H, W)` in 0…1; costs a whole decode."""
    with torch.no_grad(), toolbox.offload.using("vae"):
        return to_unit_range(toolbox.vae.decode_video(latents[:1]))[0]
