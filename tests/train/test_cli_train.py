"""`easyanimate train` and `easyanimate nano`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from easyanimate_core.cli.documents import read_document
from easyanimate_core.cli.main import run
from easyanimate_core.schema import parse
from easyanimate_core.testing import write_checkpoint
from easyanimate_train.cli import recipe_path, recipes
from easyanimate_train.config import TrainConfig

Said = tuple[int, str, str]
Say = Callable[..., Said]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line in this process: status, stdout, stderr."""

    def call(*args: str) -> Said:
        status = run(args)
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(
        f"""
output = "{(tmp_path / "run").as_posix()}"
steps = 2
objective = "denoise"
[model]
weights = "{write_checkpoint(tmp_path / "tiny").as_posix()}"
[dataset]
name = "shapes"
frames = 1
side = 16
""",
        "utf-8",
    )
    return path


@pytest.mark.parametrize("name", recipes())
def test_shipped_recipes_are_valid(name: str) -> None:
    config = parse(TrainConfig, read_document(recipe_path(name)))
    assert config.output.parts[:2] == ("runs", "nano")


def test_a_recipe_is_trained_and_its_result_named(say: Say, recipe: Path) -> None:
    status, out, err = say("train", str(recipe), "--set", "steps=3", "--set", "log_every=1")
    assert (status, err) == (0, "")
    final = Path(out.strip())
    assert final == recipe.parent / "run" / "final"
    lines = (final.parent / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_resume_says_where_it_goes_on(say: Say, recipe: Path) -> None:
    assert say("train", str(recipe))[0] == 0
    status, _, err = say("train", str(recipe), "--resume")
    assert status == 0
    assert "at step 2" in err


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["nano-vidoe"], "there is no recipe 'nano-vidoe'", "nano-vae-video"),
        (["nano-clips", "--set", "stepz=3"], "'stepz' is not a setting", "Did you mean 'steps'?"),
        (["nano-clips", "--set", "steps=0"], "'steps' is '0'", ""),
        (["nano-clips", "--set", "objective.logit_men=0"], "'objective.logit_men'", "logit_mean"),
        (
            ["nano-clips", "--set", "dataset=imagenet"],
            "no 'datasets' component is called 'imagenet'",
            "shapes, views, video",
        ),
        (["nano-clips", "--set", "model.weights=nowhere"], "nowhere", ""),
    ],
)
def test_mistakes_are_explained(say: Say, tmp_path: Path, args: list[str], message: str, hint: str) -> None:
    status, out, err = say("train", *args, "--set", f"output={tmp_path.as_posix()}/x")
    assert status in (2, 3)
    assert out == ""
    assert message in err
    assert hint in err
    assert not (tmp_path / "x").exists()


def test_exporting_what_was_not_trained_is_explained(say: Say, tmp_path: Path) -> None:
    status, _, err = say("nano", "export", str(tmp_path / "release"), "--root", str(tmp_path))
    assert status == 3
    assert "Run `easyanimate nano make` first." in err
