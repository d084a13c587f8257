"""What past runs on this machine took: it narrows what the table of devices says, for the same device and model.

`speeds.json` in the data folder holds the last runs: what was asked, how weights were placed, seconds per step. A run
is foretold as it would have been from the table; how far off that was, on average, corrects the device's speeds, and
the interval is as wide as the runs disagree, also where that is wider than the table's. `EASYANIMATE_PAST_RUNS=0`
neither keeps nor uses any.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
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
        parameters: of the denoiser: checkpoints of other sizes may go by the same name.
        attention: as it was asked for, since that is what a plan knows of it; `auto` picks the same in every run.
        asked: settings of the request that decide the work.
        placed: `offload` and `storage` with their options, and `apart`.
        seconds: of one step.
    """

    where: tuple[str, ...]
    model: str
    parameters: int
    attention: str | dict[str, Any]
    asked: dict[str, Any]
    placed: dict[str, Any]
    seconds: float

    @classmethod
    def of(
        cls,
        device: Device,
        dtype: torch.dtype,
        request: GenerationRequest,
        parameters: int,
        placed: Mapping[str, Any],
        seconds: float,
    ) -> PastRun:
        """What is kept of a run that took so many seconds per step."""
        said = {**request.model_dump(mode="json", include=set(_ASKED)), "videos_per_prompt": request.batch}
        known = _where(device, dtype), request.model, parameters, request.attention.as_json()
        return cls(*known, said, dict(placed), round(seconds, 4))


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
            with suppress(OSError):  # in a folder that cannot be written, nothing can be removed either
                scratch.unlink(missing_ok=True)

    def like(self, device: Device, counted: Counted, request: GenerationRequest) -> list[PastRun]:
        """The last runs of a model of this size on a device, with the attention of a request."""
        wanted = _where(device, counted.dtype), counted.preset.name, counted.parameters, request.attention.as_json()
        found: list[PastRun] = []
        kinds: set[str] = set()
        for run in reversed(self.runs()):
            kind = json.dumps([run.asked, run.placed])
            if (run.where, run.model, run.parameters, run.attention) != wanted:
                continue
            if len(found) < _USED and (kind in kinds or len(kinds) < _KINDS):
                kinds.add(kind)
                found.append(run)
        return found


def calibrated(device: Device, counted: Counted, request: GenerationRequest, past: Past) -> Device:
    """A device with the speeds that past runs of a request's model showed; as it was when there are none."""
    if not device.called:
        return device
    runs = past.like(device, counted, request)
    off = [factor for run in runs if (factor := _off(run, device, counted)) is not None]
    if not off:
        return device
    factor = math.prod(off) ** (1 / len(off))
    spread = _LEFT * max(max(off) / factor, factor / min(off))
    speeds = {name: getattr(device, name) / factor for name in ("matmul", "attention", "bandwidth")}
    rests_on = f"{len(off)} past run{'s' * (len(off) > 1)} of '{counted.preset.name}' here"
    return replace(device, **speeds, spread=spread, rests_on=rests_on)


def _off(run: PastRun, device: Device, counted: Counted) -> float | None:
    """How many times as long a past run's step took as the table says; `None` for what can no longer be asked."""
    try:
        if not 0 < run.seconds < math.inf:
            return None
        request = counted.preset.complete(GenerationRequest(prompt="any", seed=0, model=run.model, **run.asked))
        offload, storage = Choice.of(OFFLOAD, run.placed["offload"]), Choice.of(STORAGE, run.placed["storage"])
        work = counted.work(request, device)
        work = one_by_one(work) if run.placed.get("apart") else work
    except (EasyAnimateError, ValueError, KeyError, TypeError, AttributeError):  # of another version
        return None
    step = predict(counted.model(storage), work, replace(device, spread=1.0), offload, storage).step
    return run.seconds / math.sqrt(step.low * step.high)


def _where(device: Device, dtype: torch.dtype) -> tuple[str, ...]:
    return device.called, str(torch.get_num_threads()), str(dtype).removeprefix("torch."), torch.__version__
