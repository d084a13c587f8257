"""Going on in the middle of a loop of steps: what is kept after a step, and how it is taken up again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easyanimate_core.interfaces import SamplerState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from easyanimate_core.interfaces import Toolbox
    from easyanimate_core.pipeline.caching import CacheChain

__all__ = ["keep_step", "last_step"]

_SAMPLER = "sampler."


def keep_step(
    name: str,
    toolbox: Toolbox,
    latents: Tensor,
    generators: Sequence[Generator],
    done: int,
    total: int,
    caches: CacheChain,
) -> None:
    """Save the loop after a step, when that is due, and sampler and caches can say what they remember.

    Args:
        name: of the stage that steps.
        toolbox: its sampler and snapshots.
        latents: `(B, C, f, h, w)` after the step.
        generators: what later steps draw from, one per sample.
        done: steps taken, 1 … total.
        total: steps of the run.
        caches: what answers calls.
    """
    sampler = toolbox.sampler
    # Sampler first: asking whether it is due counts the step.
    if not isinstance(sampler, SamplerState) or not caches.resumable or not toolbox.snapshots.due(name):
        return
    remembered = {f"{_SAMPLER}{key}": value for key, value in sampler.remembered().items()}
    drawn = torch.stack([generator.get_state() for generator in generators])
    tensors = {"latents": latents, "generators": drawn, **remembered, **caches.remembered()}
    toolbox.snapshots.save(name, tensors, done=done, total=total)


def last_step(
    name: str, toolbox: Toolbox, latents: Tensor, generators: Sequence[Generator], total: int, caches: CacheChain
) -> tuple[int, Tensor]:
    """Steps that are done already, and the latents after them; sets the sampler and the generators to that point.

    Args:
        name: of the stage that steps.
        toolbox: its sampler, scheduled for this run, and snapshots.
        latents: where the run would begin; a snapshot of other latents or of another number of steps is not used.
        generators: what later steps draw from, one per sample.
        total: steps of the run.
        caches: set to that point too.
    """
    sampler, kept = toolbox.sampler, toolbox.snapshots.load(name)
    if kept is None or not isinstance(sampler, SamplerState) or not caches.resumable:
        return 0, latents
    stored = kept.tensors["latents"]
    if kept.notes.get("total") != total or stored.shape != latents.shape or stored.dtype != latents.dtype:
        return 0, latents
    for generator, state in zip(generators, kept.tensors["generators"], strict=True):
        # A copy: torch reads a state from where its storage begins, and a row lies further on.
        generator.set_state(state.clone())
    memory = {key.removeprefix(_SAMPLER): value for key, value in kept.tensors.items() if key.startswith(_SAMPLER)}
    sampler.recall({key: value.to(latents.device) for key, value in memory.items()})
    caches.recall(kept.tensors)
    return int(kept.notes["done"]), stored.to(latents.device)
