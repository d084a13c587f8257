"""A video again, from its manifest: the same weights, seeds and settings, then the same frames, or why not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from easyanimate_core.engine.manifest import Manifest
from easyanimate_core.engine.sources import versions_here
from easyanimate_core.engine.verify import check_sources, request_of
from easyanimate_core.errors import ExecutionError, InvalidRequest
from easyanimate_core.events import SILENT, CancelToken, EventBus

if TYPE_CHECKING:
    from easyanimate_core.engine.engine import Engine
    from easyanimate_core.engine.files import Made

__all__ = ["Replay", "replay"]


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of a replay.

    Attributes:
        identical: every pixel of every frame is the same, before encoding.
        path: the new file; `None` when nobody asked for one.
        differences: how this machine differs from the one of the manifest.
    """

    identical: bool
    path: Path | None
    differences: tuple[str, ...]


def replay(
    manifest: Manifest,
    engine: Engine,
    *,
    output: str | None = None,
    overwrite: bool = False,
    device: str | None = None,
    force: bool = False,
    events: EventBus = SILENT,
    cancel: CancelToken | None = None,
) -> Replay:
    """Make a video again and compare its frames with those of the manifest.

    Args:
        manifest: of the video.
        engine: runs it, as a job that is forgotten afterwards.
        output: a file for the new video; by default its frames are only compared.
        overwrite: replace an existing file.
        device: where to compute; by default where the original was.
        force: go on with weights or inputs that are not those of the manifest.
        events: hears what happens.
        cancel: stops the run.

    Raises:
        InvalidRequest: the manifest is of kept latents.
        ExecutionError: weights or inputs are missing or changed.
        EasyAnimateError: the run failed.
    """
    if manifest.digests is None or manifest.sample is None:
        raise InvalidRequest("kept latents have no frames to compare with", "Make a video of them: easyanimate decode.")
    bad = [finding for finding in check_sources(manifest, engine.store) if finding.state != "ok"]
    if bad and not force:
        raise ExecutionError(
            f"the {bad[0].what} are {bad[0].state}: {bad[0].said}", "Get them back, or try what comes out with --force."
        )
    with tempfile.TemporaryDirectory(prefix="easyanimate-") as spare:
        suffix = ".png" if manifest.video.frames == 1 else ".mp4"
        made = _run(manifest, engine, output or f"{spare}/replay{suffix}", overwrite, device, events, cancel)
    chosen = made[manifest.sample.index]
    assert chosen.manifest is not None  # the run described every file
    assert chosen.manifest.digests is not None
    return Replay(
        identical=chosen.manifest.digests.frames_sha256 == manifest.digests.frames_sha256,
        path=chosen.path if output is not None else None,
        differences=_differences(manifest, chosen.manifest),
    )


def _run(
    manifest: Manifest,
    engine: Engine,
    output: str,
    overwrite: bool,
    device: str | None,
    events: EventBus,
    cancel: CancelToken | None,
) -> tuple[Made, ...]:
    ran = manifest.ran
    job = engine.submit(
        request_of(manifest),
        output=output,
        overwrite=overwrite,
        device=device or ran.device,
        dtype=ran.dtype,
        sidecar=False,
    )
    try:
        with _threads(ran.threads if ran.device == "cpu" else None):
            return engine.run(job.id, events=events, cancel=cancel)
    finally:
        engine.store.remove(job.id)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Inside, torch adds with as many threads as the original: sums depend on how they are split."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _differences(then: Manifest, now: Manifest) -> tuple[str, ...]:
    here = versions_here()
    pairs = [(name, was, here.get(name, "not here")) for name, was in then.versions.items()]
    pairs += [(name, getattr(then.ran, name), getattr(now.ran, name)) for name in type(then.ran).model_fields]
    return tuple(f"{name}: was {was}, is {now}" for name, was, now in pairs if was != now)
