"""Runs of jobs: interrupted anywhere, they go on and make the same video; frames go to files while they are decoded."""

from __future__ import annotations

import gc
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from easyanimate_core.engine import Engine, Job, JobStore, read_manifest
from easyanimate_core.engine.decode import decode_latents
from easyanimate_core.engine.snapshots import FolderSnapshots
from easyanimate_core.engine.stages import tiled_if_needed
from easyanimate_core.errors import Cancelled, MediaError, UnreadableMedia
from easyanimate_core.events import CancelToken, Event, EventBus, JobFailed, JobFinished, JobStarted, StageStarted, Step
from easyanimate_core.interfaces import SamplerState
from easyanimate_core.media.read import read_video
from easyanimate_core.media.write import VideoWriter, to_uint8
from easyanimate_core.pipeline import load
from easyanimate_core.request import GenerationRequest
from easyanimate_core.samplers.catalog import Flow
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit
from recorder import SMALL, Recorder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"), max_length=48)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(JobStore(tmp_path / "home"))


@pytest.fixture
def submit(engine: Engine, weights: Path, tmp_path: Path) -> Callable[..., Job]:
    """Queue a small request that keeps a snapshot after every step."""

    def call(name: str = "clip.mp4", *, order: dict[str, Any] | None = None, **settings: Any) -> Job:
        request = GenerationRequest(**{**SMALL, "steps": 6, "weights": weights, **settings})
        wanted = {"output": str(tmp_path / name), "snapshot_seconds": 0, **(order or {})}
        return engine.submit(request, **wanted)

    return call


def cancel_when(cancel: CancelToken, wanted: Callable[[Event], bool]) -> EventBus:
    def hear(event: Event) -> None:
        if wanted(event):
            cancel.cancel()

    return EventBus(hear)


def frames_digest(video: torch.Tensor) -> str:
    return hashlib.sha256(to_uint8(video.permute(1, 2, 3, 0)).tobytes()).hexdigest()


def write_video(path: Path, shade: int) -> None:
    with VideoWriter(path, fps=8) as writer:
        writer.write(np.full((5, 32, 48, 3), shade, np.uint8))


def stop_at(engine: Engine, job: Job, wanted: Callable[[Event], bool]) -> None:
    cancel = CancelToken()
    with pytest.raises(Cancelled):
        engine.run(job.id, events=cancel_when(cancel, wanted), cancel=cancel)
    assert engine.store.get(job.id).state == "cancelled"


def test_streamed_frames_are_those_of_the_pipeline(engine: Engine, submit: Callable[..., Job], weights: Path) -> None:
    settings = {**SMALL, "frames": 17, "steps": 2, "scale": 2, "match_colours": True}
    (made,) = engine.run(submit(**settings).id)
    whole = load("nano", weights=weights)(**settings)
    assert made.manifest is not None
    assert made.manifest.digests is not None
    assert made.manifest.digests.frames_sha256 == frames_digest(whole.frames[0])
    assert made.manifest.video.model_dump() == {"frames": 17, "height": 64, "width": 96, "fps": 8.0}


def test_what_a_run_says(engine: Engine, submit: Callable[..., Job]) -> None:
    heard, job = Recorder(), submit(steps=2)
    (made,) = engine.run(job.id, events=EventBus(heard))
    assert heard.stages == [
        "start",
        "load",
        "encode_text",
        "condition",
        "noise",
        "denoise",
        "keep_latents",
        "decode",
        "save",
    ]
    (started,) = (event for event in heard if isinstance(event, JobStarted))
    assert started.stages == ("encode_text", "condition", "noise", "denoise", "decode")
    assert isinstance(heard[-1], JobFinished)
    assert heard[-1].outputs == (str(made.path),) == engine.store.get(job.id).outputs


@pytest.mark.parametrize("index", [0, 2, 5])
def test_a_run_goes_on_after_its_last_step(engine: Engine, submit: Callable[..., Job], index: int) -> None:
    (whole,) = engine.run(submit("whole.mp4").id)
    job = submit()
    stop_at(engine, job, lambda event: isinstance(event, Step) and event.index == index)
    heard = Recorder()
    (made,) = engine.run(job.id, events=EventBus(heard))
    steps = [event.index for event in heard if isinstance(event, Step)]
    assert steps == list(range(index + 1, 6))
    assert made.manifest is not None
    assert whole.manifest is not None
    assert made.manifest.digests == whole.manifest.digests


def test_finished_latents_are_never_computed_again(engine: Engine, submit: Callable[..., Job], tmp_path: Path) -> None:
    (whole,) = engine.run(submit("whole.mp4").id)
    job = submit()
    stop_at(engine, job, lambda event: isinstance(event, StageStarted) and event.stage == "decode")
    latents = engine.store.job_folder(job.id) / "latents.safetensors"
    assert read_manifest(latents).request["seed"] == SMALL["seed"]
    (decoded,) = decode_latents(latents, engine.store, output=str(tmp_path / "decoded.mp4"))
    heard = Recorder()
    (made,) = engine.run(job.id, events=EventBus(heard))
    assert heard.stages == ["start", "decode", "save"], "the model is loaded still, and nothing is denoised"
    digests = {item.manifest.digests.frames_sha256 for item in (whole, decoded, made) if item.manifest}  # type: ignore[union-attr]
    assert len(digests) == 1


def test_latents_can_be_kept_and_decoded_in_another_way(
    engine: Engine, submit: Callable[..., Job], tmp_path: Path
) -> None:
    engine.run(submit(order={"keep_latents": True}).id)
    kept = tmp_path / "clip.mp4.latents.safetensors"
    (large,) = decode_latents(kept, engine.store, output=str(tmp_path / "large.gif"), changes={"scale": 2})
    assert read_video(large.path)[0].shape == (5, 64, 96, 3)
    (tiled,) = decode_latents(kept, engine.store, output=str(tmp_path / "tiled.mp4"), tiled=True)
    assert read_video(tiled.path)[0].shape == (5, 32, 48, 3)
    with pytest.raises(UnreadableMedia, match="no latents"):
        decode_latents(next(tmp_path.parent.rglob("vae/*.safetensors"), kept.with_name("x")), engine.store)


@pytest.mark.feature("C031")
def test_a_cancel_stops_between_two_blocks(engine: Engine, submit: Callable[..., Job]) -> None:
    job, cancel = submit(), CancelToken()
    request = GenerationRequest.model_validate(job.spec.request)
    blocks = engine.pipeline(request).prepare().denoiser.transformer_blocks  # type: ignore[attr-defined]
    assert isinstance(blocks, nn.ModuleList)
    ran: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, index=index: (ran.append(index), cancel.cancel())[-1])
        for index, block in enumerate(blocks)
    ]
    with pytest.raises(Cancelled):
        engine.run(job.id, cancel=cancel)
    for hook in hooks:
        hook.remove()
    assert ran == [0], "of the first step, one block of two"


def test_another_process_may_cancel_through_the_store(engine: Engine, submit: Callable[..., Job]) -> None:
    job = submit(steps=1000)

    def ask(event: Event) -> None:
        if isinstance(event, Step) and event.index == 0:
            JobStore(engine.store.folder).cancel(job.id)

    with pytest.raises(Cancelled):
        engine.run(job.id, events=EventBus(ask))
    assert engine.store.get(job.id).state == "cancelled"


def test_a_run_that_fails_says_why_and_can_be_repeated(
    engine: Engine, submit: Callable[..., Job], tmp_path: Path
) -> None:
    (tmp_path / "clip.mp4").write_text("somebody else's")
    job, heard = submit(), Recorder()
    with pytest.raises(MediaError, match="exists already"):
        engine.run(job.id, events=EventBus(heard))
    failed = engine.store.get(job.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.kind == "MediaError"
    assert isinstance(heard[-1], JobFailed)
    (tmp_path / "clip.mp4").unlink()
    engine.run(job.id)
    assert engine.store.get(job.id).state == "done"


@pytest.mark.feature("C061")
def test_a_taken_number_is_not_lost_work(engine: Engine, submit: Callable[..., Job], tmp_path: Path) -> None:
    def take(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "save":
            (tmp_path / "out" / "00000001.mp4").write_text("somebody else's")

    job = submit(order={"output": f"{tmp_path / 'out'}/"}, steps=1, videos_per_prompt=2)
    made = engine.run(job.id, events=EventBus(take))
    assert [item.path.name for item in made] == ["00000002.mp4", "00000003.mp4"]
    assert [item.manifest.sample.index for item in made if item.manifest and item.manifest.sample] == [0, 1]


def test_models_stay_loaded_while_they_are_wanted(engine: Engine, submit: Callable[..., Job]) -> None:
    heard = Recorder()
    for seed in (1, 2):
        engine.run(submit(f"{seed}.mp4", seed=seed, steps=1).id, events=EventBus(heard))
    assert heard.stages.count("load") == 1
    engine.close()
    engine.run(submit("3.mp4", steps=1).id, events=EventBus(heard))
    assert heard.stages.count("load") == 2


def test_a_job_finds_its_files_from_anywhere(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths begin where the order was given, not where somebody goes on with it."""
    home, elsewhere = tmp_path / "home-of-it", tmp_path / "elsewhere"
    for folder, shade in ((home, 0), (elsewhere, 255)):
        folder.mkdir()
        write_video(folder / "clip.mp4", shade)
    write_checkpoint(home / "model", max_length=48)
    monkeypatch.chdir(home)
    condition = {"name": "source-video", "video": "clip.mp4", "strength": 0.0}
    request = GenerationRequest(**{**SMALL, "frames": 5, "weights": "model", "conditions": [condition]})
    made = [engine.run(engine.submit(request, output="here.mp4").id)[0]]
    job = engine.submit(request, output="there.mp4")
    monkeypatch.chdir(elsewhere)
    made += engine.run(job.id)
    assert [item.path for item in made] == [Path("here.mp4"), home / "there.mp4"]
    here, there = (item.manifest for item in made)
    assert here is not None
    assert there is not None
    assert here.digests == there.digests
    assert [file.path for file in here.inputs] == ["clip.mp4"]
    assert [file.path for file in there.inputs] == [str(home / "clip.mp4")]
    assert here.inputs[0].sha256 == there.inputs[0].sha256
    assert there.request["weights"] == str(home / "model")

    job = engine.submit(request.model_copy(update={"weights": str(home / "model")}), output="never.mp4")
    (elsewhere / "clip.mp4").rename(elsewhere / "gone.mp4")
    with pytest.raises(MediaError, match=re.escape(str(elsewhere / "clip.mp4"))):
        monkeypatch.chdir(home)  # where there is another video of that name
        engine.run(job.id)


def test_the_queue_is_run_in_order(engine: Engine, submit: Callable[..., Job]) -> None:
    jobs = [submit(f"{seed}.mp4", seed=seed, steps=1).id for seed in (1, 2)]
    assert [engine.run_next(), engine.run_next(), engine.run_next()] == [*jobs, None]


def test_twenty_runs_leave_no_memory_behind(engine: Engine, submit: Callable[..., Job]) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())

    def resident() -> int:
        statm = Path("/proc/self/statm")
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0

    counts, sizes = {}, []
    for seed in range(20):
        engine.run(submit(f"{seed}.mp4", seed=seed, steps=1).id)
        sizes.append(resident())
        if seed in (1, 19):
            counts[seed] = tensors()
    assert counts[19] <= counts[1]
    assert sizes[-1] - sizes[4] < 32 * 2**20, sizes


class TestSnapshots:
    def test_they_are_due_after_enough_steps_and_seconds(self, tmp_path: Path) -> None:
        now = [0.0]
        kept = FolderSnapshots(tmp_path, every=2, seconds=10, clock=lambda: now[0])
        assert [kept.due("x") for _ in range(3)] == [False, False, False], "too early"
        now[0] = 10
        assert kept.due("x")
        kept.save("x", {"t": torch.ones(1)})
        now[0] = 20
        assert [kept.due("x"), kept.due("x")] == [False, True], "counted from the last one"

    def test_they_come_back_as_they_were(self, tmp_path: Path) -> None:
        kept = FolderSnapshots(tmp_path / "new")
        assert kept.load("x") is None
        value = torch.randn(2, 3).bfloat16()
        kept.save("x", {"t": value}, step=3, 说="红")
        kept.within("part").save("x", {"t": torch.zeros(1)})
        found = kept.load("x")
        assert found is not None
        assert torch.equal(found.tensors["t"], value)
        assert found.notes == {"step": 3, "说": "红"}
        kept.drop("part")
        assert kept.within("part").load("x") is None

    def test_a_damaged_one_is_none(self, tmp_path: Path) -> None:
        kept = FolderSnapshots(tmp_path)
        kept.save("x", {"t": torch.ones(9)})
        kept.path("x").write_bytes(kept.path("x").read_bytes()[:-5])
        assert kept.load("x") is None

    def test_flow_remembers_nothing_between_steps(self) -> None:
        sampler = Flow()
        assert isinstance(sampler, SamplerState)
        assert sampler.remembered() == {}


def test_a_decoder_without_memory_is_tried_again_in_tiles() -> None:
    vae, heard, calls = Magvit(**VAE_CONFIG), Recorder(), []

    def decode() -> None:
        calls.append(vae.tile_decoder)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("out of memory")

    tiled_if_needed(decode, vae, EventBus(heard))
    assert calls == [False, True]
    assert heard.notices == ["decoding ran out of memory; trying again in tiles"]
    tiled_if_needed(decode, vae, EventBus(heard))
    assert calls == [False, True, True], "once is enough where there is room"


def test_a_long_video_goes_on_in_the_middle_of_a_segment(engine: Engine, tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "inpainting", in_channels=33)
    request = GenerationRequest(
        prompt="a red circle",
        model="v5.1-7b-inp",
        weights=str(weights),
        size=(128, 128),  # type: ignore[arg-type]
        frames=15,
        segment_frames=9,
        segment_overlap=2,
        steps=2,
        seed=4,
    )
    order = {"overwrite": True, "snapshot_seconds": 0}
    (whole,) = engine.run(engine.submit(request, output=str(tmp_path / "whole.mp4"), **order).id)
    job, steps = engine.submit(request, output=str(tmp_path / "clip.mp4"), **order), []
    stop_at(engine, job, lambda event: isinstance(event, Step) and (steps.append(event) or len(steps) == 3))  # type: ignore[func-returns-value]
    heard = Recorder()
    (made,) = engine.run(job.id, events=EventBus(heard))
    assert [event.index for event in heard if isinstance(event, Step)] == [1], "one of four steps was left"
    assert made.manifest is not None
    assert whole.manifest is not None
    assert made.manifest.digests == whole.manifest.digests
    assert made.manifest.video.frames == 15
