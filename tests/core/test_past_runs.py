"""Past runs narrow what a plan says of times, on the same device and for the same model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from easyanimate_core.cli.main import run as easyanimate
from easyanimate_core.engine import Engine, JobStore
from easyanimate_core.engine.home import data_folder
from easyanimate_core.engine.planner import Past, find_device, plan_run
from easyanimate_core.engine.planner.past import PastRun
from easyanimate_core.engine.planner.predict import Interval
from easyanimate_core.engine.planner.sketch import denoiser_size
from easyanimate_core.presets import find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.testing import write_checkpoint

CPU = find_device("cpu")
BUNDLED = find_preset("nano").bundled_path()
assert BUNDLED is not None
SIZE = denoiser_size(find_preset("nano"), BUNDLED)
PLACED = {"offload": "resident", "storage": "native", "apart": False}


def asked(size: str = "32x48", **more: Any) -> GenerationRequest:
    request = GenerationRequest(prompt="a", model="nano", size=size, frames=5, steps=2, seed=1, **more)
    return find_preset("nano").complete(request)


def step(past: Past | None, size: str = "32x48", **more: Any) -> tuple[Interval, str]:
    plan = plan_run(asked(size, **more), find_preset("nano"), CPU, past=past)
    return plan.taken().step, plan.device.rests_on


def ran(past: Past, took: float, size: str = "32x48", *, called: str = CPU.called, **other: Any) -> None:
    run = PastRun.of(replace(CPU, called=called), torch.float32, asked(size), SIZE, PLACED, took)
    past.keep(replace(run, **other))


@pytest.mark.feature("C064")
def test_what_a_step_took_is_inside_a_narrower_interval(tmp_path: Path) -> None:
    past = Past(tmp_path)
    table, _ = step(past)
    for seconds in (0.9, 1.0, 1.1):
        ran(past, seconds)
    found, rests_on = step(past)
    assert rests_on == "3 past runs of 'nano' here"
    assert found.low < 0.9 < 1.1 < found.high
    assert found.high / found.low < 2.5 < table.high / table.low
    assert step(past) == (found, rests_on), "the same runs, the same plan"
    assert step(None)[0] == table


@pytest.mark.feature("C064")
def test_runs_of_one_size_tell_of_another(tmp_path: Path) -> None:
    past = Past(tmp_path)
    small, large = (step(past, size)[0] for size in ("32x48", "64x96"))
    ran(past, 10 * small.high)
    found, _ = step(past, "64x96")
    assert found.low > 4 * large.low, "a device that is slower than the table says is slower at every size"


def test_the_interval_is_as_wide_as_runs_disagree(tmp_path: Path) -> None:
    past, table = Past(tmp_path), step(None)[0]
    ran(past, 0.05)
    ran(past, 50.0)
    found, _ = step(past)
    assert found.low < 0.05 < 50 < found.high
    assert found.high / found.low > table.high / table.low


def test_other_devices_and_models_tell_nothing(tmp_path: Path) -> None:
    past = Past(tmp_path)
    ran(past, 1.0, model="v5.1-nano-inp")
    ran(past, 1.0, called="another")
    ran(past, 1.0, parameters=SIZE - 1)
    ran(past, 1.0, attention="easyanimate-core:matmul")
    assert step(past) == step(None)
    rented = replace(CPU, called="")
    assert plan_run(asked(), find_preset("nano"), rented, past=past).device == rented, "devices that are not at hand"


def test_a_file_that_is_damaged_or_of_another_version_counts_for_nothing(tmp_path: Path) -> None:
    past = Past(tmp_path)
    ran(past, 1.0)
    for text in ("[", '{"a": 1}', '[{"where": []}]', "[3]"):
        (tmp_path / "speeds.json").write_text(text, encoding="utf-8")
        assert past.runs() == []
    ran(past, 1.0)
    assert len(past.runs()) == 1


@pytest.mark.parametrize(
    "other", [{"asked": []}, {"asked": {"size": []}}, {"placed": []}, {"placed": {}}, {"seconds": "1"}, {"seconds": 0}]
)
def test_a_run_that_can_no_longer_be_asked_counts_for_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    past = Past(tmp_path)
    ran(past, 1.0, **other)
    assert len(past.runs()) == 1
    assert step(past) == step(None)


def test_another_attention_is_another_run(tmp_path: Path) -> None:
    past = Past(tmp_path)
    ran(past, 1.0, attention="easyanimate-core:matmul")
    assert step(past, attention="matmul")[1] == "1 past run of 'nano' here"
    assert step(past)[1] == "the table of devices"


def test_a_folder_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    past = Past(tmp_path / "file")
    ran(past, 1.0)
    assert past.runs() == []


def test_it_forgets_the_oldest_and_can_be_switched_off(tmp_path: Path) -> None:
    past = Past(tmp_path)
    for number in range(70):
        ran(past, float(number))
    assert [run.seconds for run in past.runs()] == [float(number) for number in range(6, 70)]
    off = Past(tmp_path, {"EASYANIMATE_PAST_RUNS": "0"})
    ran(off, 1.0)
    assert off.runs() == []
    assert len(past.runs()) == 64


@pytest.mark.feature("C064")
def test_the_engine_keeps_its_runs_and_the_command_rests_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EASYANIMATE_HOME", str(tmp_path / "home"))
    weights = write_checkpoint(tmp_path / "tiny", max_length=32)
    request = asked().model_copy(update={"weights": str(weights)})
    engine = Engine(JobStore())
    other = {"vae_path": str(weights / "vae")}
    for at, settings in enumerate(({}, {"step_caches": ({"name": "easycache"},)}, other)):
        more = GenerationRequest.model_validate({**request.model_dump(mode="json"), **settings})
        engine.run(engine.submit(more, output=str(tmp_path / f"{at}.mp4")).id)
    (kept,) = Past(data_folder()).runs()
    assert kept.placed == {"offload": "easyanimate-core:resident", "storage": "easyanimate-core:native", "apart": False}
    assert kept.seconds > 0
    assert kept.parameters == denoiser_size(find_preset("nano"), weights) < SIZE
    assert kept.attention == request.attention.as_json()
    line = ["plan", "--weights", str(weights), "--size", "32x48", "--frames", "5", "--json"]
    assert easyanimate([*line, "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["device"]["times_rest_on"] == "1 past run of 'nano' here"
    nano = [word for word in line if word not in ("--weights", str(weights))]
    assert easyanimate([*nano, "--device", "cpu"]) == 0
    said = json.loads(capsys.readouterr().out)["device"]["times_rest_on"]
    assert said == "the table of devices", "other weights under the model's name tell nothing of it"
    engine.run(engine.submit(asked(), output=str(tmp_path / "nano.mp4")).id)
    assert easyanimate([*nano, "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["device"]["times_rest_on"] == "1 past run of 'nano' here"
    assert easyanimate([*line, "--device", "h100"]) == 0
    assert json.loads(capsys.readouterr().out)["device"]["times_rest_on"] == "the table of devices"
