"""The walk along a plan: one stage after the other, with events, placement of weights, and cancel."""

from __future__ import annotations

from collections.abc import Callable

import torch

from easyanimate_core.data import State
from easyanimate_core.errors import OutOfMemory
from easyanimate_core.interfaces import Stage, Toolbox
from easyanimate_core.pipeline.cancelling import cancellable
from easyanimate_core.pipeline.plan import Plan

__all__ = ["run"]


def run(plan: Plan, state: State, toolbox: Toolbox) -> State:
    """Walk along a plan. A stage that could only fill what the state already holds is left out.

    A state may thus bring its own embeddings (`text`, `negative_text`) or `latents`: the stages that would make
    them do not run.

    Raises:
        InvalidPlan: a stage would not find what it needs.
        OutOfMemory: the device is too small.
        Cancelled: someone asked to stop.
    """
    given = _filled(state)
    todo = Plan(stage for stage in plan if not (made := stage.gives - stage.needs) or not made <= given)
    todo.check(given)
    with cancellable(toolbox):
        for stage in todo:
            toolbox.cancel.check()
            state = _taken(stage, state, toolbox)
    return state


def _taken(stage: Stage, state: State, toolbox: Toolbox) -> State:
    """The state after one stage."""
    peak = _memory_peak(toolbox.device)
    with torch.no_grad(), toolbox.events.span(stage.name, peak_bytes=peak), toolbox.offload.using(*stage.uses):
        try:
            return stage(state, toolbox)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                f"the device '{toolbox.device}' ran out of memory in the stage '{stage.name}'",
                "Ask for fewer frames or a smaller size, or for --offload stream; easyanimate plan compares.",
            ) from error


def _filled(state: State) -> frozenset[str]:
    """The fields of a state that hold something."""
    fields = ("text", "negative_text", "conditions", "latents", "video")
    return frozenset(name for name in fields if getattr(state, name) not in (None, ()))


def _memory_peak(device: torch.device) -> Callable[[], int | None]:
    """Start measuring now; the result tells the most bytes that a CUDA device held since, `None` elsewhere."""
    if device.type != "cuda":
        return lambda: None
    torch.cuda.reset_peak_memory_stats(device)
    return lambda: torch.cuda.max_memory_allocated(device)
