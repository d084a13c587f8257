"""What past runs on this machine took: it narrows what the table of devices says, for the same device and model.

`speeds.json` in the data folder holds the last runs: what was asked, how weights were placed, seconds per step. A run
is foretold as it would have been from the table; how far off that was, on average, corrects the device's speeds, and
the interval is as wide as the runs disagree. `EASYANIMATE_PAST_RUNS=0` neither keeps nor uses any.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from easyanimate_core.engine.home import data_folder
from easyanimate_core.engine.planner.predict import one_by_one, predict
from easyanimate_core.errors import EasyAnimateError
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import Choice
from easyanimate_core.slots import OFFLOAD, STORAGE

if TYPE_CHECKING:
    from easyanimate_core.engine.planner.choose import Counted
    from easyanimate_core.engine.planner.devices import Device

__all__ = ["Past", "PastRun", "calibrated"]

_KEPT: Final = 64
_USED: Final = 8
_KINDS: Final = 3  # among them, of different size or placement: each has to be counted
_LEFT: Final = 1.3  # how far the next run may be off all the same
_ASKED: Final = ("size", "frames", "steps", "guidance")


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run.

    Attributes:
        where: the device as its maker calls it, threads of the CPU, dtype, torch.
        model: name of the preset.
        asked: settings of the request that decide the work.
        placed: `offload` and `storage` with their options, and `apart`.
        seconds: of one step.
    """

    where: tuple[str, ...]
    model: str
    asked: dict[str, Any]
    placed: dict[str, Any]
    seconds: float

    @classmethod
    def of(
        cls, device: Device, dtype: torch.dtype, request: GenerationRequest, placed: Mapping[str, Any], seconds: float
    ) -> PastRun:
        """What is kept of a run that took so many seconds per step."""
        said = {**request.model_dump(mode="json", include=set(_ASKED)), "videos_per_prompt": request.batch}
        return cls(_where(device, dtype), request.model, said, dict(placed), round(seconds, 4))


class Past:
    """The runs that are known. A file that cannot be read or written only makes intervals wider.

    Args:
        folder: where `speeds.json` is; the data folder when `None`.
        environ: where it can be switched off.
    """

    def __init__(self, folder: Path | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._path = (folder or data_folder(environ)) / "speeds.json"
        self._off = environ.get("EASYANIMATE_PAST_RUNS", "1") == "0"

    def runs(self) -> list[PastRun]:
        """All, the oldest first."""
        try:
            found = [] if self._off else json.loads(self._path.read_text(encoding="utf-8"))
            return [PastRun(**{**run, "where": tuple(run["where"])}) for run in found]
        except (OSError, ValueError, TypeError, KeyError):  # of another version, or not ours
            return []

    def keep(self, run: PastRun) -> None:
        """Add one, and forget the oldest."""
        if self._off:
            return
        scratch = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            scratch.write_text(json.dumps([asdict(r) for r in [*self.runs(), run][-_KEPT:]], indent=1), "utf-8")
            scratch.replace(self._path)
        except OSError:
            scratch.unlink(missing_ok=True)

    def like(self, device: Device, dtype: torch.dtype, model: str) -> list[PastRun]:
        """The last runs of a model on a device."""
        found: list[PastRun] = []
        kinds: set[str] = set()
        for run in reversed(self.runs()):
            kind = json.dumps([run.asked, run.placed])
            if (run.where, run.model) != (_where(device, dtype), model):
                continue
            if len(found) < _USED and (kind in kinds or len(kinds) < _KINDS):
                kinds.add(kind)
                found.append(run)
        return found


def calibrated(device: Device, counted: Counted, past: Past) -> Device:
    """A device with the speeds that past runs of a model showed; as it was when there are none."""
    if not device.called:
        return device
    runs = past.like(device, counted.dtype, counted.preset.name)
    off = [run.seconds / told for run in runs if (told := _foretold(run, device, counted)) is not None]
    if not off:
        return device
    factor = math.prod(off) ** (1 / len(off))
    spread = _LEFT * max(max(off) / factor, factor / min(off))
    speeds = {name: getattr(device, name) / factor for name in ("matmul", "attention", "bandwidth")}
    rests_on = f"{len(off)} past run{'s' * (len(off) > 1)} of '{counted.preset.name}' here"
    return replace(device, **speeds, spread=min(spread, device.spread), rests_on=rests_on)


def _foretold(run: PastRun, device: Device, counted: Counted) -> float | None:
    """Seconds of a step that the table gives for a past run; `None` for what can no longer be asked."""
    try:
        request = counted.preset.complete(GenerationRequest(prompt="any", seed=0, model=run.model, **run.asked))
        offload, storage = Choice.of(OFFLOAD, run.placed["offload"]), Choice.of(STORAGE, run.placed["storage"])
        work = counted.work(request, device)
    except (EasyAnimateError, ValueError, KeyError):  # of another version
        return None
    work = one_by_one(work) if run.placed.get("apart") else work
    step = predict(counted.model(storage), work, replace(device, spread=1.0), offload, storage).step
    return math.sqrt(step.low * step.high)


def _where(device: Device, dtype: torch.dtype) -> tuple[str, ...]:
    return device.called, str(torch.get_num_threads()), str(dtype).removeprefix("torch."), torch.__version__
