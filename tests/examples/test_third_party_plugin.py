"""The example plugin is a stranger's: built, installed beside core in a clean environment, and used as the tutorial
says. The tutorial is the example: every file of it, to the letter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from environments import build_wheel, make_environment, run
from tutorials import Page
from workspace import ROOT

PLUGIN = ROOT / "examples" / "third_party_plugin"
PAGE = Page("plugin")

KEEPS = """
import sys
import easyanimate_core as ea
from easyanimate_core.testing import write_checkpoint

pipe = ea.load("nano", weights=write_checkpoint(sys.argv[1]))
settings = dict(prompt="a red circle", size=(32, 32), frames=5, steps=3, seed=1)
two = pipe(**settings, sampler={"name": "power", "power": 2.0}).frames
again = pipe(**settings, sampler="easyanimate-cinema:power").frames
even = pipe(**settings, sampler={"name": "power", "power": 1.0}).frames
print(tuple(two.shape), bool((again == even).all()), bool((two == even).all()))
"""


def own_files() -> dict[str, str]:
    """Files of the example that say something."""
    paths = [path for path in PLUGIN.rglob("*") if path.suffix in (".py", ".toml") and path.name != "__init__.py"]
    return {str(path.relative_to(PLUGIN)): path.read_text(encoding="utf-8") for path in paths}


def test_the_tutorial_shows_every_file_as_it_is():
    assert PAGE.files() == own_files()


@pytest.fixture(scope="module")
def python(wheels: dict[str, Path], libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plugin = build_wheel(PLUGIN, tmp_path_factory.mktemp("cinema"))
    return make_environment(tmp_path_factory.mktemp("env"), libraries, wheels["easyanimate-core"], plugin)


def told(python: Path, *arguments: str) -> str:
    return run(python.with_name("easyanimate"), *arguments)


@pytest.mark.slow
def test_it_is_in_the_help_and_in_the_schema_of_a_request(python: Path):
    text = " ".join(told(python, "generate", "--help").split())
    assert "--bar NUMBER Height of each bar" in text
    assert all(f" {name}" in text for name in ("letterbox", "power"))
    schema = json.loads(told(python, "generate", "--schema"))
    assert "more dwells near the end" in " ".join(json.dumps(schema).split()).replace("\\n", " ")
    assert "rounded to the model's grid" in json.dumps(schema)


@pytest.mark.slow
def test_the_command_line_takes_it(python: Path):
    asked = ("--bar", "0.2", "--sampler", "power", "--set", "sampler.power=2")
    request = json.loads(told(python, "generate", "a red circle", "--dry-run", *asked))
    assert request["conditions"] == [{"name": "easyanimate-cinema:letterbox", "bar": 0.2}]
    assert request["sampler"] == {"name": "easyanimate-cinema:power", "power": 2.0}


@pytest.mark.slow
def test_a_pipeline_samples_with_it(python: Path, tmp_path: Path):
    assert run(python, "-c", KEEPS, tmp_path / "tiny").split("\n")[-2] == "(1, 3, 5, 32, 32) True False"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # five processes that load torch: a minute, and much more on a machine that is busy
def test_the_tutorials_commands_work(python: Path, tmp_path: Path):
    shutil.copytree(PLUGIN, tmp_path / "easyanimate-cinema")
    assert PAGE.commands[0] == "pip install ./easyanimate-cinema"
    said = PAGE.run(python, tmp_path)
    listing = next(text for line, text in said.items() if "plugins info" in line)
    assert "loaded" in listing
    assert "flow-matching Euler, steps spaced by a power" in listing
    assert " passed" in next(text for line, text in said.items() if "pytest" in line)
    run(python, "-c", PAGE.blocks("python")[-1], cwd=tmp_path)
    for name in ("bars.mp4", "both.mp4", "cinema.mp4"):
        frames = read(tmp_path / name)
        assert frames.shape == (17, 64, 64, 3)
        assert frames[:, :6].mean() < 30, "the bar above is black"
        assert frames[:, -6:].mean() < 30, "the bar below is black"
        assert frames[:, 20:40, :, 2].mean() > 100, "the picture between them is blue"


def read(path: Path) -> NDArray[np.uint8]:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
