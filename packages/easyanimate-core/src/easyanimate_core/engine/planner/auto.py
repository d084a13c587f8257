"""What `auto` means: the planner's choice for the request at hand, or what is obvious without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from easyanimate_core.events import EventBus, Notice
from easyanimate_core.schema import Choice
from easyanimate_core.sizes import GIB, written_bytes
from easyanimate_core.slots import OFFLOAD, STORAGE

if TYPE_CHECKING:
    from easyanimate_core.pipeline.assemble import Assembly
    from easyanimate_core.request import GenerationRequest

__all__ = ["Decision", "settled"]

_SMALL: Final = GIB // 2  # of files: fits wherever a video does


@dataclass(frozen=True, slots=True)
class Decision:
    """A placement, and what it was decided for.

    Attributes:
        assembly: with everything decided.
        asked: as it came, with `auto` in it.
        wanted: what of a request decides.
        tiled: frames are decoded in tiles.
        apart: both halves of guidance run one after the other.
    """

    assembly: Assembly
    asked: Assembly
    wanted: tuple[object, ...]
    tiled: bool = False
    apart: bool = False


def settled(assembly: Assembly, before: Decision | None, request: GenerationRequest, events: EventBus) -> Decision:
    """Decide an assembly for a request.

    Args:
        assembly: as it is now.
        before: what was decided for an earlier request of the same pipeline.
        request: complete.
        events: hears what was chosen.

    Raises:
        OutOfMemory: the request fits in no way.
    """
    wanted = (
        request.size,
        request.frames,
        request.segment_frames,
        request.batch,
        request.vram_budget,
        request.guidance,
    )
    asked = assembly if before is None else before.asked
    if before is not None and before.wanted == wanted:
        return before
    if asked.offload.name != "auto" and request.vram_budget is None:
        # Who names a placement gets it, whatever the planner would foresee; a budget is kept or refused.
        return Decision(_plain(asked), asked, wanted)
    if (plain := _obvious(asked, request)) is not None:
        return Decision(plain, asked, wanted)
    return _planned(Decision(_plain(asked), asked, wanted), request, events)


def _plain(asked: Assembly) -> Assembly:
    """What is asked, and where nothing is, the fastest."""
    offload = Choice.of(OFFLOAD, "resident") if asked.offload.name == "auto" else asked.offload
    storage = Choice.of(STORAGE, "native") if asked.storage.name == "auto" else asked.storage
    return replace(asked, offload=offload, storage=storage)


def _obvious(asked: Assembly, request: GenerationRequest) -> Assembly | None:
    """The placement where no planner is needed; `None` where one is."""
    from easyanimate_core.engine.planner.devices import this_device

    stored = sum(path.stat().st_size for path in asked.folder.rglob("*") if path.is_file())
    if stored <= _SMALL and request.vram_budget is None:
        return _plain(asked)
    if asked.device.type != "cpu" or request.vram_budget is not None:
        return None
    # Weights on disk are mostly of two bytes, on a CPU they compute in four.
    free = this_device(asked.device).host
    return _plain(asked) if free is None or 2.5 * stored < free else None


def _planned(plain: Decision, request: GenerationRequest, events: EventBus) -> Decision:
    """What the planner says; `plain` for a third party's model that it cannot count."""
    from easyanimate_core.engine.planner.choose import plan_run
    from easyanimate_core.engine.planner.devices import this_device
    from easyanimate_core.engine.planner.sketch import Uncountable

    asked = plain.asked
    device = this_device(asked.device)
    open_ = request.model_copy(update={"offload": asked.offload, "storage": asked.storage})
    try:
        plan = plan_run(open_, asked.preset, device, folder=asked.folder, dtype=asked.dtype)
    except Uncountable as error:
        # Who makes a model of their own need not make it run without weights.
        events.emit(Notice(f"{error.message}; weights stay on the device", "warning"))
        return plain
    found = plan.taken()
    events.emit(Notice(f"placement: {found.name}; up to {written_bytes(found.vram.high)} on '{device.name}' foreseen"))
    return replace(
        plain,
        assembly=replace(asked, offload=found.offload, storage=found.storage),
        tiled=found.tiled,
        apart=found.apart,
    )
