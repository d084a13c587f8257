"""One run of one job, from the order to its files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyanimate_core.engine.digests import FileDigests
from easyanimate_core.engine.files import Made, OutputFiles
from easyanimate_core.engine.outputs import Destination
from easyanimate_core.engine.record import Record
from easyanimate_core.engine.snapshots import FolderSnapshots
from easyanimate_core.engine.sources import from_folder, input_files, weight_files
from easyanimate_core.engine.stages import LATENTS, begin_at_decode, send_to_files
from easyanimate_core.engine.watch import Watch
from easyanimate_core.errors import EasyAnimateError, InvalidRequest
from easyanimate_core.events import CancelToken, EventBus, JobStarted, Notice
from easyanimate_core.plugins import active
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import parse

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import State
    from easyanimate_core.engine.engine import Engine
    from easyanimate_core.engine.job import Job
    from easyanimate_core.engine.store import JobStore
    from easyanimate_core.pipeline.pipeline import Pipeline

__all__ = ["digests_of", "run_job"]


def run_job(job: Job, engine: Engine, events: EventBus, cancel: CancelToken) -> tuple[tuple[Made, ...], float]:
    """Make the files of a job that this process holds; returns them, and the seconds that it took.

    Raises:
        EasyAnimateError: something is wrong, or someone asked to stop. Snapshots stay for the next time.
    """
    began = time.perf_counter()
    spec, folder = job.spec, engine.store.job_folder(job.id)
    request = parse(GenerationRequest, spec.request, InvalidRequest, of=f"the request of job '{job.id}'")
    # Where this process is, is not where the order was given; where it is, paths stay as they were written.
    base = None if Path(spec.folder) == Path.cwd() else Path(spec.folder)
    if base is not None:
        request = from_folder(request, base)
    with Watch(engine.store, job.id, cancel) as watch:
        bus = active().wire(EventBus(events.emit, watch))
        destination = Destination.for_request(request, spec.output, overwrite=spec.overwrite, base=base)
        files = OutputFiles(destination, folder, job.uid, bus, embed=spec.manifest, sidecar=spec.sidecar)
        files.clean()
        if len(files.published()) == request.batch:
            files.finish()  # the last run was killed when all was done but the saying so
        else:
            cancel.check()
            _make(job, request, files, engine, bus, cancel)
        if spec.keep_latents:
            _keep_latents(folder, files.made[0].path, bus)
    return tuple(files.made), time.perf_counter() - began


def _make(
    job: Job, request: GenerationRequest, files: OutputFiles, engine: Engine, bus: EventBus, cancel: CancelToken
) -> None:
    spec = job.spec
    if not files.published():
        files.destination.check()
    pipe = engine.pipeline(request, device=spec.device, dtype=spec.dtype, events=bus)
    # The pipeline's own checks too: conditions against inlets, for example.
    request = pipe.complete(request)
    pipe.settle(request, bus)
    snapshots = FolderSnapshots(files.folder, every=spec.snapshot_every, seconds=spec.snapshot_seconds)
    plan = pipe.plan(request)
    stages = plan.names
    with ExitStack() as stack:
        digests = stack.enter_context(digests_of(pipe.assembly.folder, request, engine.store))
        record = Record(job.uid, request, pipe.assembly, stages, digests, pipe.placement)
        stack.callback(bus.subscribe(record))
        bus.emit(JobStarted(str(job.id), stages, spec.request))
        send_to_files(plan, partial(_write, files, record), partial(_describe, record))
        kept = snapshots.load(LATENTS)
        given: dict[str, Any] = {}
        if kept is not None and begin_at_decode(plan):
            given["latents"] = kept.tensors[LATENTS].to(pipe.assembly.device)
        pipe.walk(request, plan, events=bus, cancel=cancel, snapshots=snapshots, **given)
    _remember(record, pipe, engine.store)


def _remember(record: Record, pipe: Pipeline, store: JobStore) -> None:
    """Keep how long a step took, for plans; not of runs that do other work than a plan counts."""
    request, seconds, placed = record.request, record.seconds_per_step(), pipe.assembly
    if seconds is None or request.step_caches or request.loras or request.segment_frames is not None:
        return
    if placed.transformer_path or placed.vae_path or placed.motion_path or placed.config:
        return
    from easyanimate_core.engine.planner.devices import this_device
    from easyanimate_core.engine.planner.past import Past, PastRun
    from easyanimate_core.engine.planner.sketch import denoiser_size

    how: dict[str, Any] = {"offload": placed.offload.as_json(), "storage": placed.storage.as_json()}
    how["apart"] = pipe.placement()["apart"]
    try:
        parameters = denoiser_size(placed.preset, placed.folder)
    except (EasyAnimateError, OSError):  # plans cannot count it either
        return
    device = this_device(placed.device)
    Past(store.folder).keep(PastRun.of(device, placed.dtype, request, parameters, how, seconds))


def _write(files: OutputFiles, record: Record, frames: Iterator[Tensor], fps: float, state: State) -> None:
    files.write(frames, fps, lambda index, written: record.of_file(index, written, fps, state.notes))


def _describe(record: Record, state: State) -> dict[str, Any]:
    assert record.request.fps is not None  # complete() decided
    return record.of_latents(state.geometry, record.request.fps, state.notes).as_json()


def digests_of(folder: Path, request: GenerationRequest, store: JobStore) -> FileDigests:
    """Digests of a checkpoint's files and of all that a request names, not yet begun."""
    return FileDigests([*weight_files(folder).values(), *(path for _, path in input_files(request))], store)


def _keep_latents(folder: Path, output: Path, bus: EventBus) -> None:
    """Move the latents beside the first file."""
    kept = folder / f"{LATENTS}.safetensors"
    if kept.exists():
        shutil.move(kept, output.with_name(f"{output.name}.latents.safetensors"))
    else:
        bus.emit(Notice("this plan keeps no latents of the whole video", "warning"))
