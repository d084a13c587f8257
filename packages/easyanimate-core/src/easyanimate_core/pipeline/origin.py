"""Sampling that starts from a video, or keeps parts of one: what `State.origin` does to the diffusion loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_core.errors import IncompatibleConditions
from easyanimate_core.interfaces import Renoises

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import Origin
    from easyanimate_core.interfaces import Sampler

__all__ = ["begin", "blend"]


def begin(sampler: Sampler, noise: Tensor, origin: Origin | None) -> Tensor:
    """Latents at the first step of the sampler's schedule: noise, or the origin's latents noised to that level.

    Args:
        sampler: its schedule was made for the origin's strength.
        noise: `(B, C, f, h, w)`, unit normal.
        origin: `None` starts from noise alone.

    Raises:
        IncompatibleConditions: the origin keeps places, and the sampler cannot noise latents in the middle of a run.
    """
    if origin is None:
        return sampler.begin(noise)
    if origin.redraw is not None and not isinstance(sampler, Renoises):
        raise IncompatibleConditions(
            f"the sampler '{type(sampler).__name__}' cannot keep parts of a video",
            "Use the sampler 'flow', a model with the inlets 'mask' and 'masked_video', or no mask.",
        )
    # The order of samples is that of the noise: every sample of a batch starts from the same video.
    clean = origin.latents.to(noise).expand_as(noise)
    return sampler.begin(noise, clean)


def blend(sampler: Sampler, latents: Tensor, noise: Tensor, origin: Origin | None, index: int) -> Tensor:
    """Put back what the origin keeps, noised to the level before step `index`; after the last step it is clean.

    Lugmayr et al., "RePaint" (2022), equation 8, without its resampling. For flow matching the level is σ of the
    next step.
    """
    if origin is None or origin.redraw is None or not isinstance(sampler, Renoises):
        return latents
    redraw = origin.redraw.to(latents)
    kept = sampler.renoise(origin.latents.to(noise).expand_as(noise), noise, index).to(latents.dtype)
    return redraw * latents + (1 - redraw) * kept
