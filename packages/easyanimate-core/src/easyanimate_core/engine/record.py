"""What a run finds out about itself, put together as manifests."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from easyanimate_core.engine.manifest import Digests, FileDigest, Manifest, ModelUsed, Picture, Ran, Sample
from easyanimate_core.engine.sources import input_files, versions_here, weight_files
from easyanimate_core.events import Event, StageFinished, StageStarted, Step

if TYPE_CHECKING:
    from easyanimate_core.data import Geometry
    from easyanimate_core.engine.digests import FileDigests
    from easyanimate_core.media.write import Written
    from easyanimate_core.pipeline.assemble import Assembly
    from easyanimate_core.request import GenerationRequest

__all__ = ["Record", "device_name"]


@dataclass(slots=True)
class Record:
    """Hears a run's events and describes its files.

    Attributes:
        job: what files of this run share.
        request: what was asked, complete.
        assembly: which weights, and where they went.
        stages: the plan.
        digests: of weights and inputs, computed meanwhile.
        placement: gives what followed from offload and storage, once weights are placed.
        began: when the run began, in seconds of `time.perf_counter`.
        finished: wall time of stages that have ended.
        running: when the others began.
        steps: steps that were heard of, and how many there are.
    """

    job: str
    request: GenerationRequest
    assembly: Assembly
    stages: tuple[str, ...]
    digests: FileDigests
    placement: Callable[[], Mapping[str, Any]] = dict
    began: float = field(default_factory=time.perf_counter)
    finished: dict[str, float] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    steps: tuple[int, int] = (0, 0)

    def __call__(self, event: Event) -> None:
        """Note when a stage begins, and how long it took."""
        match event:
            case StageStarted(stage):
                self.running[stage] = time.perf_counter()
            case Step(total=total):
                self.steps = self.steps[0] + 1, total
            case StageFinished(stage=stage, seconds=seconds):
                self.running.pop(stage, None)
                self.finished[stage] = self.finished.get(stage, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Wall time by stage until now, also of those that go on, and in all: a file is written while it is decoded."""
        now = time.perf_counter()
        going_on = {stage: now - began for stage, began in self.running.items()}
        return {name: round(s, 3) for name, s in {**self.finished, **going_on, "total": now - self.began}.items()}

    def seconds_per_step(self) -> float | None:
        """Of a run that was not interrupted; with the time that keeping its latents takes, which waits for a GPU."""
        done, total = self.steps
        if done == 0 or done != total:
            return None
        return (self.finished.get("denoise", 0.0) + self.finished.get("keep_latents", 0.0)) / total

    def of_file(self, index: int, written: Written, fps: float, notes: Mapping[str, Any]) -> Manifest:
        """The manifest of one finished video.

        Raises:
            OSError: weights or inputs vanished during the run.
        """
        return self._manifest(
            Picture(frames=written.frames, height=written.height, width=written.width, fps=fps),
            notes,
            self.digests.result(),
            sample=Sample(index=index, seed=self.request.sample_seeds()[index]),
            digests=Digests(frames_sha256=written.frames_sha256, stored_sha256=written.stored_sha256),
        )

    def of_latents(self, geometry: Geometry, fps: float, notes: Mapping[str, Any]) -> Manifest:
        """The manifest of latents that are kept before they are decoded; does not wait for digests."""
        picture = Picture(frames=geometry.frames, height=geometry.height, width=geometry.width, fps=fps)
        return self._manifest(picture, notes, self.digests.so_far())

    def _manifest(self, video: Picture, notes: Mapping[str, Any], hashed: Mapping[Path, str], **parts: Any) -> Manifest:
        preset, folder = self.assembly.preset, self.assembly.folder
        weights = {name: path for name, path in weight_files(folder).items() if path in hashed}
        inputs = {path: named for named, path in input_files(self.request) if path in hashed}
        return Manifest(
            job=self.job,
            request=self.request.model_dump(mode="json"),
            seeds=self.request.sample_seeds(),
            video=video,
            model=ModelUsed(
                preset=preset.name,
                generation=preset.generation,
                components=preset.components.model_dump(mode="json"),
                weights=tuple(_file(path, name, hashed) for name, path in weights.items()),
            ),
            inputs=tuple(_file(path, named, hashed) for path, named in inputs.items()),
            ran=self._ran(notes),
            determinism="exact" if self.assembly.device.type == "cpu" else "seeded",
            versions=versions_here(),
            seconds=self.seconds(),
            notes=dict(notes),
            **parts,
        )

    def _ran(self, notes: Mapping[str, Any]) -> Ran:
        assembly = self.assembly
        return Ran(
            device=str(assembly.device),
            device_name=device_name(assembly.device),
            dtype=str(assembly.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            attention=str(notes.get("attention", "own")),
            offload=assembly.offload.in_full(),
            storage=assembly.storage.in_full(),
            placement=dict(self.placement()),
            stages=self.stages,
        )


def device_name(device: torch.device) -> str:
    """What the maker calls a device; of a CPU, its architecture and the instructions that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _file(path: Path, named: str, hashed: Mapping[Path, str]) -> FileDigest:
    return FileDigest(path=named, bytes=path.stat().st_size, sha256=hashed[path])
