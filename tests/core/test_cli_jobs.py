"""`easyanimate jobs` and `decode`: what a person does about runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from easyanimate_core import Host, using
from easyanimate_core.cli.main import run
from easyanimate_core.engine import read_manifest
from easyanimate_core.events import Event, StageStarted
from easyanimate_core.plugins import hookimpl
from easyanimate_core.testing import write_checkpoint

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"), max_length=48)


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYANIMATE_HOME", str(tmp_path / "home"))

    def call(*line: str) -> tuple[int, str, str]:
        status = run(line)
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def begun(say: Say, weights: Path) -> Say:
    """A run that was cancelled when its latents were finished."""

    class Impatient:
        @hookimpl
        def easyanimate_event(self, event: Event) -> None:
            if isinstance(event, StageStarted) and event.stage == "decode":
                signal.raise_signal(signal.SIGINT)

    small = ("--weights", str(weights), "--size", "32x48", "--frames", "9", "--steps", "2", "--seed", "7")
    with using(Host(discover=False, plugins={"easyanimate-impatient": Impatient()})):
        status, out, err = say("generate", "a red circle", *small, "-o", "clip.mp4", "--set", "scale=16")
    assert (status, out) == (4, "")
    assert "hint: Go on: easyanimate jobs resume 1" in err
    return say


def test_a_simple_run_is_a_job(say: Say, weights: Path) -> None:
    small = ("--weights", str(weights), "--size", "32x48", "--frames", "1", "--steps", "1")
    assert say("generate", "a red circle", *small, "-o", "a.png")[0] == 0
    status, out, _ = say("jobs", "list")
    assert status == 0
    assert out.splitlines()[0].split() == ["JOB", "STATE", "ORDERED", "PROGRESS", "PROMPT"]
    assert out.splitlines()[1].split()[:2] == ["1", "done"]
    (job,) = json.loads(say("jobs", "list", "--json")[1])
    assert job["outputs"] == [str(Path("a.png").absolute())]
    assert "a red circle" in say("jobs", "show", "1")[1]
    assert json.loads(say("jobs", "show", "1", "--json")[1]) == job
    assert say("jobs", "rm", "--done") == (0, "", "")
    assert json.loads(say("jobs", "list", "--json")[1]) == []
    assert Path("a.png").exists(), "videos stay"


def test_nothing_to_do_is_said(say: Say) -> None:
    assert say("jobs", "resume") == (0, "", "")
    assert say("jobs", "show", "7")[0] == 2
    assert say("jobs", "cancel", "7")[2].startswith("error: there is no job '7'")
    assert say("jobs", "rm")[0] == 2


def test_what_was_begun_goes_on_from_anywhere(begun: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "easyanimate jobs resume 1" in begun("jobs", "show", "1")[1]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert begun("jobs", "resume", "1")[:2] == (0, f"{tmp_path / 'clip.mp4'}\n")
    assert begun("jobs", "resume", "1")[0] == 2, "it is done"


def test_latents_of_a_stopped_job_can_be_decoded(begun: Say, tmp_path: Path) -> None:
    latents = tmp_path / "home" / "jobs" / "1" / "latents.safetensors"
    assert str(latents) in begun("jobs", "show", "1")[1]
    status, out, _ = begun("decode", str(latents), "-o", "small.mp4", "--scale", "1", "--json")
    assert status == 0
    assert json.loads(out)["video"] == {"frames": 9, "height": 32, "width": 48, "fps": 8.0}
    assert read_manifest("small.mp4").request["seed"] == 7
    status, _, err = begun("decode", "small.mp4")
    assert status == 3
    assert "hint: Give the FILE.latents.safetensors that --keep-latents kept" in err


def test_where_jobs_cannot_be_kept_videos_are_made_all_the_same(
    say: Say, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EASYANIMATE_HOME", str(tmp_path / "file" / "home"))
    small = ("--weights", str(weights), "--size", "32x48", "--frames", "1", "--steps", "1")
    status, out, err = say("generate", "a red circle", *small, "-o", "a.png")
    assert (status, out) == (0, "a.png\n")
    assert err.startswith("warning: jobs cannot be kept in")
