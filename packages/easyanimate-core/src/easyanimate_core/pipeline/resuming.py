"""Going on in the middle of a loop of steps: what is kept after a step, and how it is taken up again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_core.interfaces import SamplerState

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_core.interfaces import Toolbox

__all__ = ["keep_step", "last_step"]

_SAMPLER = "sampler."


def keep_step(name: str, toolbox: Toolbox, latents: Tensor, generator: Generator, done: int, total: int) -> None:
    """Save the loop after a step, when that is due and the sampler can say what it remembers.

    Args:
        name: of the stage that steps.
        toolbox: its sampler and snapshots.
        latents: `(B, C, f, h, w)` after the step.
        generator: what later steps draw from.
        done: steps taken, 1 … total.
        total: steps of the run.
    """
    sampler = toolbox.sampler
    # Sampler first: asking whether it is due counts the step.
    if not isinstance(sampler, SamplerState) or not toolbox.snapshots.due(name):
        return
    remembered = {f"{_SAMPLER}{key}": value for key, value in sampler.remembered().items()}
    tensors = {"latents": latents, "generator": generator.get_state(), **remembered}
    toolbox.snapshots.save(name, tensors, done=done, total=total)


def last_step(name: str, toolbox: Toolbox, latents: Tensor, generator: Generator, total: int) -> tuple[int, Tensor]:
    """Steps that are done already, and the latents after them; sets the sampler and the generator to that point.

    Args:
        name: of the stage that steps.
        toolbox: its sampler, scheduled for this run, and snapshots.
        latents: where the run would begin; a snapshot of other latents or of another number of steps is not used.
        generator: what later steps draw from.
        total: steps of the run.
    """
    sampler, kept = toolbox.sampler, toolbox.snapshots.load(name)
    if kept is None or not isinstance(sampler, SamplerState):
        return 0, latents
    stored = kept.tensors["latents"]
    if kept.notes.get("total") != total or stored.shape != latents.shape or stored.dtype != latents.dtype:
        return 0, latents
    generator.set_state(kept.tensors["generator"])
    memory = {key.removeprefix(_SAMPLER): value for key, value in kept.tensors.items() if key.startswith(_SAMPLER)}
    sampler.recall(memory)
    return int(kept.notes["done"]), stored.to(latents.device)
