"""Which placement to take: the fastest that fits and changes no number; what would be cheaper; why nothing fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from easyanimate_core.data import Geometry
from easyanimate_core.engine.planner.counting import Counts
from easyanimate_core.engine.planner.devices import Device
from easyanimate_core.engine.planner.past import Past, calibrated
from easyanimate_core.engine.planner.predict import Prediction, Work, in_tiles, one_by_one, predict, work_of
from easyanimate_core.engine.planner.sketch import Sketch, folder_of, parameters_of, sketch
from easyanimate_core.errors import OutOfMemory
from easyanimate_core.pipeline.fit import whole_frames
from easyanimate_core.pipeline.settled import Settled
from easyanimate_core.presets import Preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import Choice
from easyanimate_core.slots import OFFLOAD, STORAGE
from easyanimate_core.stepping import KeepsTokens

if TYPE_CHECKING:
    from easyanimate_core.interfaces import OffloadStrategy, Storage

__all__ = ["Counted", "RunPlan", "plan_run"]

_PLACES: Final = ("resident", "model", "stream", "sequential")
_STORAGES: Final = ("native", "float8")  # int8 takes as much as float8


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How to run a request on a device.

    Attributes:
        device: where.
        chosen: what to do; `None` when nothing fits.
        others: what else was looked at, fastest first: cheaper ones, and ones that do not fit.
    """

    device: Device
    chosen: Prediction | None
    others: tuple[Prediction, ...]

    def taken(self) -> Prediction:
        """What to do.

        Raises:
            OutOfMemory: nothing fits.
        """
        if self.chosen is not None:
            return self.chosen
        least = min(self.others, key=lambda other: other.vram.high)
        raise OutOfMemory(
            f"the request does not fit: {least.short} (least of all: {least.name})",
            "Ask for fewer frames or a smaller size, allow more, or free memory that other programs hold.",
        )


class Counted:
    """What plans of one model share: its modules on the meta device, and what requests compute.

    Args:
        preset: the model.
        folder: its checkpoint, if it is at hand.
        dtype: to compute in.
    """

    def __init__(self, preset: Preset, folder: Path | None, dtype: torch.dtype) -> None:
        self.preset, self.folder, self.dtype = preset, folder, dtype
        self.stored = preset.disk_gb * 1e9 if folder is None else float(_stored(folder))
        self._models: dict[str, Sketch] = {}
        self._works: dict[Any, Work] = {}

    def model(self, storage: Choice[Storage]) -> Sketch:
        """The model in a storage.

        Raises:
            InvalidRequest: its size is not known before its weights are here.
        """
        key = str(storage.as_json())
        if key not in self._models:
            self._models[key] = sketch(self.preset, self.folder, self.dtype, storage.create())
        return self._models[key]

    @property
    def parameters(self) -> int:
        """Of the denoiser."""
        return parameters_of(self.model(Choice.of(STORAGE, "native")).modules["denoiser"])

    def work(self, request: GenerationRequest, device: Device) -> Work:
        """What a request computes; in tiles where the device is too small to decode without."""
        model = self.model(Choice.of(STORAGE, "native"))
        settled, geometry = Settled.of(request), _geometry(request, self.preset, model)
        key = (geometry, settled.steps, settled.guided)
        if key not in self._works:
            self._works[key] = work_of(model, geometry, settled.steps, guided=settled.guided, dtype=self.dtype)
        caches = [choice.create() for choice in request.step_caches]
        kept = sum(cache.tokens_kept() for cache in caches if isinstance(cache, KeepsTokens))
        work = replace(self._works[key], cached=round(kept * self._works[key].tokens))
        limit = min(device.memory, request.vram_budget or device.memory)
        roomy = device.reserved + work.waiting + 1.3 * work.decode.peak <= limit
        if roomy or (device.kind == "cpu" and request.vram_budget is None):
            return work
        if (key, "tiled") not in self._works:
            self._works[key, "tiled"] = in_tiles(work, model, geometry, self.dtype)
        return replace(self._works[key, "tiled"], cached=work.cached)


def plan_run(
    request: GenerationRequest,
    preset: Preset,
    device: Device,
    *,
    folder: Path | None = None,
    dtype: torch.dtype | None = None,
    counted: Counted | None = None,
    past: Past | None = None,
) -> RunPlan:
    """Predict what a request takes on a device, in all ways that the request leaves open.

    Of `auto` the planner chooses what is fastest of all that fits and changes no number: weights in types of one byte
    are looked at, and never chosen unless the request names them.

    Args:
        request: as `preset.complete` gives it.
        preset: of its model.
        device: where it would run; need not be at hand.
        folder: the checkpoint; where the preset says when `None`, and if it is nowhere, the release's sizes.
        dtype: to compute in; bfloat16 on a GPU, float32 on a CPU.
        counted: of an earlier plan for this model; made anew when `None`.
        past: runs that times are to rest on, where some are of this device and model; none when `None`.

    Raises:
        InvalidRequest: the model's size is not known before its weights are here.
    """
    if counted is None:
        dtype = dtype or (torch.float32 if device.kind == "cpu" else torch.bfloat16)
        counted = Counted(preset, folder or folder_of(preset, request.weights), dtype)
    device = device if past is None else calibrated(device, counted, request, past)
    work = counted.work(request, device)
    looked_at = _looked_at(request, device, counted, work)
    chosen = _best(request, looked_at)
    if Settled.of(request).guided and (chosen is None or any(_cost(found) < _cost(chosen) for found in looked_at)):
        # Memory decides: with one half at a time, something faster may fit.
        halves = _looked_at(request, device, counted, one_by_one(work))
        better = _best(request, [*([chosen] if chosen else []), *halves])
        looked_at += halves if better is not chosen or chosen is None else []
        chosen = better
    return RunPlan(device, chosen, tuple(sorted((found for found in looked_at if found is not chosen), key=_cost)))


def _looked_at(request: GenerationRequest, device: Device, counted: Counted, work: Work) -> list[Prediction]:
    """All placements that the request leaves open."""
    budget = request.vram_budget
    return [
        predict(counted.model(storage), work, device, offload, storage, budget=budget, reading=counted.stored)
        for storage in _storages(request)
        for offload in _placements(request, counted.model(storage), work, device)
    ]


def _best(request: GenerationRequest, looked_at: Sequence[Prediction]) -> Prediction | None:
    """What fits and computes the numbers that were asked for; the fastest of it."""
    fits = [found for found in looked_at if not found.short and (found.exact or request.storage.name != "auto")]
    return min(fits, key=_cost, default=None)


def _cost(found: Prediction) -> tuple[int, int, int, float]:
    """Without files; then the fastest, to a hundredth; of equally fast ones that which copies least.

    What is counted does not tell two half batches from one whole; twice as many kernels count as a twentieth.
    """
    speed = math.log(max(found.seconds.high, 1e-3)) + 0.05 * found.apart
    copies = _PLACES.index(found.offload.name) if found.offload.name in _PLACES else len(_PLACES)
    return (bool(found.disk), round(speed * 100), copies, found.vram.high)


def _storages(request: GenerationRequest) -> list[Choice[Storage]]:
    if request.storage.name != "auto":
        return [request.storage]
    return [Choice.of(STORAGE, name) for name in _STORAGES]


def _placements(
    request: GenerationRequest, model: Sketch, work: Work, device: Device
) -> Iterator[Choice[OffloadStrategy]]:
    if request.offload.name not in ("auto", "stream"):
        yield request.offload
        return
    for name in _PLACES if request.offload.name == "auto" else ("stream",):
        if name != "stream":
            yield Choice.of(OFFLOAD, name)
            continue
        said = request.offload.given if request.offload.name == "stream" else {}
        room = _room(model, work, device, min(device.memory, request.vram_budget or device.memory))
        small = device.host is None or device.host < 1.3 * model.loading
        for source in ("ram", *(("disk",) if small else ())) if "source" not in said else (said["source"],):
            yield Choice.of(OFFLOAD, {"name": "stream", "budget": room, "source": source, **said})


def _room(model: Sketch, work: Work, device: Device, limit: int) -> int:
    """Bytes that weights of a component may have, at least 1.

    All of the VAE is small: where it fits beside its own work, that work takes no room from the others' weights.
    """
    free = limit - device.reserved - work.waiting
    vae = sum(tensor.nbytes for tensor in model.modules["vae"].parameters())
    decodes = vae + 1.1 * work.decode.peak <= free
    return max(int(free - 1.1 * (replace(work, decode=Counts()) if decodes else work).lives()), 1)


def _geometry(request: GenerationRequest, preset: Preset, model: Sketch) -> Geometry:
    """The size of the video, or of one segment of a long one."""
    vae: Any = model.modules["vae"]
    size = preset.limits.fit(request.size or preset.defaults.size)
    asked = request.segment_frames or request.frames or preset.defaults.frames
    frames = whole_frames(asked, preset, vae.compression)
    return Geometry(size.height, size.width, frames, request.batch if request.segment_frames is None else 1)


def _stored(folder: Path) -> int:
    """Bytes of a checkpoint's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
