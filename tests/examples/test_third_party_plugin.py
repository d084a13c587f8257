"""The example plugin is a stranger's: built, installed beside core in a clean environment, and used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from environments import build_wheel, make_environment, run
from workspace import ROOT

pytestmark = pytest.mark.slow

USE = """
import sys
import easyanimate_core as ea
from easyanimate_core.testing.tiny import write_checkpoint

folder = write_checkpoint(sys.argv[1])
pipe = ea.load("nano", weights=folder)
settings = dict(prompt="a red circle", size=(32, 32), frames=5, steps=3, seed=1)
one = pipe(**settings, sampler={"name": "power", "power": 2.0}).frames
again = pipe(**settings, sampler="easyanimate-power:power").frames
even = pipe(**settings, sampler={"name": "power", "power": 1.0}).frames
print(tuple(one.shape), bool((again == even).all()), bool((one == even).all()))
"""

INTEGRATE = """
import torch
from easyanimate_core.plugins import active
sampler = active().registries.named("samplers").create("power", {"power": 3.0})
clean, noise = torch.randn(1, 2, 1, 4, 4), torch.randn(1, 2, 1, 4, 4)
latents = sampler.begin(noise) if len(sampler.schedule(7)) == 7 else None
for index in range(7):
    latents = sampler.step(noise - clean, index, latents)
assert torch.allclose(latents, clean, atol=1e-5)
"""


@pytest.fixture(scope="module")
def python(wheels: dict[str, Path], libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plugin = build_wheel(ROOT / "examples" / "third_party_plugin", tmp_path_factory.mktemp("power"))
    return make_environment(tmp_path_factory.mktemp("env"), libraries, wheels["easyanimate-core"], plugin)


def test_it_is_listed_with_what_it_adds(python: Path):
    told = run(python.with_name("easyanimate"), "plugins", "info", "easyanimate-power")
    assert "loaded" in told
    assert "flow-matching Euler, steps spaced by a power" in told


def test_its_options_are_in_the_schema_of_a_request(python: Path):
    schema = json.loads(run(python.with_name("easyanimate"), "generate", "--schema"))
    assert "more dwells near the end" in json.dumps(schema)


def test_the_command_line_takes_it(python: Path):
    asked = ("generate", "a red circle", "--dry-run", "--set", "sampler.name=power", "--set", "sampler.power=2")
    request = json.loads(run(python.with_name("easyanimate"), *asked))
    assert request["sampler"] == {"name": "easyanimate-power:power", "power": 2.0}


def test_it_follows_a_straight_line_exactly(python: Path):
    run(python, "-c", INTEGRATE)


def test_a_pipeline_samples_with_it(python: Path, tmp_path: Path):
    assert run(python, "-c", USE, tmp_path / "tiny").split("\n")[-2] == "(1, 3, 5, 32, 32) True False"
