"""Kept latents to videos, with nothing but the VAE in memory."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from easyanimate_core.engine.files import Made, OutputFiles
from easyanimate_core.engine.manifest import Manifest
from easyanimate_core.engine.models import load_for
from easyanimate_core.engine.outputs import Destination
from easyanimate_core.engine.record import Record
from easyanimate_core.engine.run import digests_of
from easyanimate_core.engine.snapshots import read_snapshot
from easyanimate_core.engine.stages import LATENTS, streamed, tiled_if_needed
from easyanimate_core.engine.verify import request_of
from easyanimate_core.errors import InvalidPlan, OutOfMemory, UnreadableMedia, UnsafeCheckpoint
from easyanimate_core.events import SILENT, CancelToken, EventBus
from easyanimate_core.interfaces import StreamsFrames, SupportsTiling
from easyanimate_core.pipeline.decode import Decode, decoded
from easyanimate_core.pipeline.settled import Settled
from easyanimate_core.plugins import active
from easyanimate_core.schema import parse

if TYPE_CHECKING:
    from easyanimate_core.engine.store import JobStore
    from easyanimate_core.pipeline import Pipeline
    from easyanimate_core.request import GenerationRequest

__all__ = ["decode_latents"]

_GIVE: Final = "Give the FILE.latents.safetensors that --keep-latents kept, undamaged."


def decode_latents(
    path: Path,
    store: JobStore,
    *,
    output: str | None = None,
    overwrite: bool = False,
    manifest: bool = True,
    sidecar: bool = True,
    tiled: bool = False,
    device: str | None = None,
    changes: dict[str, Any] | None = None,
    events: EventBus = SILENT,
    cancel: CancelToken | None = None,
) -> tuple[Made, ...]:
    """Decode latents that a job kept, chunk by chunk into the files.

    Args:
        path: a `.latents.safetensors` file, or the `latents.safetensors` of an unfinished job.
        store: remembers digests of weights.
        output: a file, or a folder for numbered ones; `outputs/` by default.
        overwrite: replace existing files.
        manifest: write the manifest into the files.
        sidecar: write it beside them too.
        tiled: decode large frames tile by tile.
        device: where to compute; the best at hand by default.
        changes: fields of the request to replace: `weights`, `scale`, `fps`.
        events: hears what happens.
        cancel: stops the run.

    Raises:
        CheckpointNotFound: there is no such file.
        UnsafeCheckpoint: it is damaged, or something else.
        UnreadableMedia: these are no latents of ours.
        CheckpointError: the VAE's weights are missing or do not fit.
        MediaError: the files cannot be written.
    """
    token, bus = cancel or CancelToken(), active().wire(EventBus(events.emit))
    try:
        kept = read_snapshot(path)
    except UnsafeCheckpoint as error:
        raise UnsafeCheckpoint(error.message, _GIVE) from error
    if LATENTS not in kept.tensors or "manifest" not in kept.notes:
        raise UnreadableMedia(f"'{path}' holds no latents with a manifest", _GIVE)
    described = parse(Manifest, kept.notes["manifest"], of=f"the manifest of '{path}'")
    request = request_of(described).model_copy(update=changes or {})
    destination = Destination.for_request(request, output, overwrite=overwrite)
    destination.check()
    pipe = load_for(request, device=device, dtype=described.ran.dtype)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easyanimate-")))
        digests = stack.enter_context(digests_of(pipe.assembly.folder, request, store))
        record = Record(described.job, request, pipe.assembly, described.ran.stages, digests)
        stack.callback(bus.subscribe(record))
        files = OutputFiles(destination, folder, folder.name, bus, embed=manifest, sidecar=sidecar and manifest)
        _stream(pipe, request, kept.tensors[LATENTS], files, record, described, tiled, bus, token)
    return tuple(files.made)


def _stream(
    pipe: Pipeline,
    request: GenerationRequest,
    latents: torch.Tensor,
    files: OutputFiles,
    record: Record,
    described: Manifest,
    tiled: bool,
    bus: EventBus,
    cancel: CancelToken,
) -> None:
    device, fps = pipe.assembly.device, Settled.of(request).fps
    then = _after_decode(pipe, request)
    with bus.span("load"):
        vae = pipe.assembly.vae(bus)
        if isinstance(vae, nn.Module):
            vae.to(device)
    if tiled and isinstance(vae, SupportsTiling):
        vae.set_tiling(True)

    def decode() -> None:
        frames = decoded(vae, latents.to(device), described.video.frames, bus, cancel)
        files.write(
            streamed(frames, then), fps, lambda index, written: record.of_file(index, written, fps, described.notes)
        )

    try:
        with torch.no_grad(), bus.span(Decode.name):
            tiled_if_needed(decode, vae, bus)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"the device '{device}' ran out of memory", "Try --tiled, or --device cpu.") from error


def _after_decode(pipe: Pipeline, request: GenerationRequest) -> list[StreamsFrames]:
    """The stages after decoding, which all work on streams.

    Raises:
        InvalidPlan: one does not.
    """
    stages = tuple(pipe.plan(request))
    at = next((index for index, stage in enumerate(stages) if stage.name == Decode.name), None)
    after = [] if at is None else stages[at + 1 :]
    streaming: list[StreamsFrames] = [stage for stage in after if isinstance(stage, StreamsFrames)]
    if at is None or len(streaming) != len(after):
        raise InvalidPlan(
            "these latents need a stage that works on whole clips", "Resume their job: easyanimate jobs resume."
        )
    return streaming
