"""The loop: exact resume, cancelling, what a run writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.source import read_json, weight_files
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.errors import Cancelled, CheckpointMismatch, CheckpointNotFound, ExecutionError
from easyanimate_core.events import CancelToken, Event, EventBus, Metric, Step
from easyanimate_core.schema import parse
from easyanimate_core.testing import write_checkpoint
from easyanimate_train.config import TrainConfig
from easyanimate_train.loop.snapshot import Snapshot
from easyanimate_train.loop.trainer import Trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


def recipe(tiny: Path, output: Path, **changes: Any) -> TrainConfig:
    document = {
        "output": str(output),
        "steps": 4,
        "batch_size": 2,
        "seed": 7,
        "model": {"weights": str(tiny), "fresh": ["denoiser"]},
        "objective": "denoise",
        "learnable": {"name": "full", "roles": ["denoiser", "text"]},
        "dataset": {"name": "shapes", "frames": 5, "side": 16},
        "optim": {"name": "muon", "warmup": 2, "accumulate": 2},
        "ema": {"decay": 0.9},
        "checkpoint": {"every": 1, "keep": 9},
        "log_every": 1,
        **changes,
    }
    return parse(TrainConfig, document)


def trainer(config: TrainConfig, *, cancel: CancelToken | None = None, events: EventBus | None = None) -> Trainer:
    return Trainer(
        config,
        config.objective.create(),
        config.learnable.create(),
        config.dataset.create(),
        events=events or EventBus(),
        cancel=cancel or CancelToken(),
    )


def same(a: Path, b: Path) -> bool:
    one, two = Snapshot(a), Snapshot(b)
    assert one.weights().keys() == two.weights().keys()
    equal = all(torch.equal(one.weights()[k], two.weights()[k]) for k in one.weights())
    averages = zip(one.ema()["shadow_params"], two.ema()["shadow_params"], strict=True)
    moments = json.dumps(str(one.optimizer())) == json.dumps(str(two.optimizer()))
    return equal and moments and all(torch.equal(x, y) for x, y in averages)


@pytest.mark.feature("T121", "T118", "T105")
@pytest.mark.parametrize("cache", [0, 6])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_stopping_and_resuming_changes_nothing(tmp_path: Path, checkpoint: Path, optimizer: str, cache: int) -> None:
    optim = {"name": optimizer, "warmup": 2, "accumulate": 2}
    whole = recipe(checkpoint, tmp_path / "whole", optim=optim, cache={"clips": cache} if cache else None)
    trainer(whole).run()

    parts = recipe(checkpoint, tmp_path / "parts", optim=optim, cache={"clips": cache} if cache else None)
    cancel = CancelToken()

    def stop_after_two(event: Event) -> None:
        if isinstance(event, Step) and event.stage == "train" and event.index == 1:
            cancel.cancel()

    with pytest.raises(Cancelled):
        trainer(parts, cancel=cancel, events=EventBus(stop_after_two)).run()
    torch.manual_seed(12345)  # whatever happens in between
    trainer(parts).run(resume=True)

    assert same(tmp_path / "whole" / "checkpoint-4", tmp_path / "parts" / "checkpoint-4")
    lines = {
        name: [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    }
    losses = {name: [(row["step"], row["loss"], row["lr"]) for row in rows] for name, rows in lines.items()}
    assert losses["whole"] == losses["parts"]


@pytest.mark.feature("T120")
def test_a_run_keeps_the_newest_checkpoints_and_writes_a_released_folder(tmp_path: Path, checkpoint: Path) -> None:
    output = tmp_path / "run"
    final = trainer(recipe(checkpoint, output, checkpoint={"every": 1, "keep": 2})).run()
    assert sorted(p.name for p in output.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    assert {p.name for p in final.iterdir()} == {"transformer", "vae", "scheduler", "text_encoder", "tokenizer"}

    config = {k: v for k, v in read_json(final / "transformer" / "config.json").items() if not k.startswith("_")}
    model = MMDiT(**config)
    load_into(model, weight_files(final / "transformer"))
    average = Snapshot(output / "checkpoint-4").ema()["shadow_params"][0]
    assert torch.equal(next(model.parameters()), average)


@pytest.mark.feature("T102")
def test_only_chosen_parameters_move(tmp_path: Path, checkpoint: Path) -> None:
    config = recipe(
        checkpoint,
        tmp_path / "run",
        learnable={"name": "modules", "names": ["denoiser.proj_out"]},
        model={"weights": str(checkpoint)},
        ema=None,
        optim={"warmup": 0},
        steps=1,
    )
    run = trainer(config)
    before = {name: p.clone() for name, p in run.models.denoiser.named_parameters()}
    run.run()
    moved = {name for name, p in run.models.denoiser.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"proj_out.weight", "proj_out.bias"}


def test_a_run_does_not_overwrite_another(tmp_path: Path, checkpoint: Path) -> None:
    config = recipe(checkpoint, tmp_path / "run", steps=1)
    trainer(config).run()
    with pytest.raises(ExecutionError, match="holds an earlier run"):
        trainer(config).run()


def test_resuming_with_another_recipe_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    trainer(recipe(checkpoint, tmp_path / "run", steps=1)).run()
    with pytest.raises(CheckpointMismatch, match="steps, batch_size"):
        trainer(recipe(checkpoint, tmp_path / "run", steps=2, batch_size=1)).run(resume=True)


def test_resuming_nothing_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no checkpoint to resume"):
        trainer(recipe(checkpoint, tmp_path / "run")).run(resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, checkpoint: Path) -> None:
    run = trainer(recipe(checkpoint, tmp_path / "run"))
    with torch.no_grad():
        run.models.denoiser.proj_out.bias.fill_(float("nan"))
    with pytest.raises(ExecutionError, match="the loss is 'nan' at step 1"):
        run.run()


@pytest.mark.feature("T116")
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, checkpoint: Path) -> None:
    for name, on in (("off", False), ("on", True)):
        trainer(recipe(checkpoint, tmp_path / name, gradient_checkpointing=on, steps=2)).run()
    assert same(tmp_path / "off" / "checkpoint-2", tmp_path / "on" / "checkpoint-2")


@pytest.mark.feature("T124")
def test_numbers_go_to_a_file_to_events_and_to_tensorboard(tmp_path: Path, checkpoint: Path) -> None:
    heard: list[Event] = []
    config = recipe(checkpoint, tmp_path / "run", steps=2, tensorboard=True)
    trainer(config, events=EventBus(heard.append)).run()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert [e.value for e in heard if isinstance(e, Metric) and e.name == "loss"] == [row["loss"] for row in rows]
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [scalar.value for scalar in board.Scalars("loss")] == pytest.approx([row["loss"] for row in rows])
