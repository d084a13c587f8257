"""Conditions on the command line: flags made from their options, job files, `--set`, and mistakes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import click
import numpy as np
import pytest
from PIL import Image

from easyanimate_core import Host, using
from easyanimate_core.cli.flags import options_of, values_given
from easyanimate_core.cli.main import run
from easyanimate_core.media.read import read_video
from easyanimate_core.media.write import VideoWriter
from easyanimate_core.plugins import hookimpl
from easyanimate_core.registry import Registrar
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import Hint, Model
from inpainting import clip, picture, written
from workspace import ROOT

PAGE = (ROOT / "docs" / "how-to" / "image-to-video.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ easyanimate generate ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ easyanimate generate ")
]

Said = tuple[int, str, str]
Generate = Callable[..., Said]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("weights"), 33)


@pytest.fixture
def generate(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Generate:
    """Run `easyanimate generate` with the tiny model in a folder that has what the page talks of."""
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(("cat", "closed", "open")):
        Image.fromarray(picture(index, height=96, width=96)).save(f"{name}.png")
    Image.fromarray(np.full((128, 128), 255, dtype=np.uint8)).save("fireplace.png")
    Image.fromarray(np.full((16, 16), 255, dtype=np.uint8)).save("small.png")
    Path("words.png").write_text("these are words")
    toml = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    Path("cat.toml").write_text(toml[0], encoding="utf-8")
    frames = np.ascontiguousarray(clip(9, height=128, width=128))
    with VideoWriter("room.mp4", fps=8) as writer:
        writer.write(frames)

    def call(*args: str, model: str = "v5.1-7b-inp", folder: Path = weights) -> Said:
        status = run(["generate", *args, "--model", model, "--weights", str(folder), "--steps", "1", "--seed", "1"])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.mark.feature("C060", "C035", "C042")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_work(generate: Generate, command: str) -> None:
    arguments = shlex.split(command)
    if "--segment-frames" in arguments:
        smaller = ["--frames", "13", "--segment-frames", "9", "--size", "128x128"]
    else:
        smaller = ["--frames", "5"]
        sized = "--resolution" in arguments or arguments[0] == "cat.toml"
        smaller += ["--resolution", "128"] if sized else ["--size", "128x128"]
    status, out, err = generate(*arguments, *smaller)
    assert (status, err) == (0, "")
    frames, fps = read_video(out.strip())
    assert frames.shape == (int(smaller[1]), 128, 128, 3)
    assert fps == 8


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.feature("C060")
def test_flags_are_options_of_conditions(generate: Generate) -> None:
    flags = ["--start-image", "cat.png", "--start-image", "open.png", "--source-video", "room.mp4", "--strength", "0.5"]
    status, out, err = generate("x", *flags, "--dry-run")
    assert (status, err) == (0, "")
    assert json.loads(out)["conditions"] == [
        {"name": "easyanimate-core:frames", "start": ["cat.png", "open.png"]},
        {"name": "easyanimate-core:source-video", "video": "room.mp4", "strength": 0.5},
    ]


@pytest.mark.feature("C060")
def test_a_flag_completes_a_condition_that_is_named(generate: Generate) -> None:
    status, out, _ = generate(
        "x", "--condition", '{"name": "frames", "noise": 0}', "--start-image", "cat.png", "--dry-run"
    )
    assert status == 0
    assert json.loads(out)["conditions"] == [{"name": "easyanimate-core:frames", "start": ["cat.png"], "noise": 0.0}]


@pytest.mark.feature("C060", "C039")
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--start-image", "words.png"], 4, "cannot read 'words.png'"),
        (["--start-image", "none.png"], 4, "'none.png' does not exist"),
        (["--end-image", "open.png"], 2, "'end' needs a picture to start with"),
        (["--source-video", "room.mp4", "--mask", "small.png"], 2, "the mask is '16x16' and the video 128x128"),
        (["--source-video", "room.mp4", "--strength", "1.5"], 2, "'conditions[0].strength' is '1.5'"),
        (["--strength", "0.5"], 2, "'conditions[0].video' is missing"),
        (["--source-video", "words.png"], 4, "cannot read 'words.png'"),
        (["--resolution", "512"], 2, "no condition has a picture"),
        (["--frames", "99", "--segment-frames", "9", "--segment-overlap", "9"], 2, "cannot share 9"),
        (["--frames", "99"], 2, "'99' frames"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(generate: Generate, arguments: list[str], status: int, said: str) -> None:
    got, out, err = generate("a prompt", "--output", "made.mp4", *arguments)
    assert (got, out) == (status, "")
    assert said in err
    assert len(err.strip().splitlines()) <= 2
    assert not Path("made.mp4").exists()


@pytest.mark.feature("C038", "C039")
def test_a_model_without_the_inlet(generate: Generate, tmp_path: Path) -> None:
    words = written(tmp_path / "words", 16)
    status, out, err = generate("a prompt", "--start-image", "cat.png", model="v5.1-7b", folder=words)
    assert (status, out) == (2, "")
    assert "the model 'v5.1-7b' has no inlet 'mask' for 'frames' (it has: text)" in err
    assert "v5.1-nano-inp" in err, "the hint names models that have it"


class BlurOptions(Model):
    """Options of somebody's conditioner."""

    radius: Annotated[int, Hint(flag="blur")] = 2
    """How far it reaches. Default: 2."""

    strength: Annotated[float, Hint(flag="strength")] = 1.0
    """A flag that core has already. Default: 1."""


@pytest.mark.feature("C060")
def test_a_plugins_condition_has_its_flags_too() -> None:
    class Blur:
        @hookimpl
        def easyanimate_register(self, registrar: Registrar) -> None:
            registrar.add("conditioners", "blur", "easyanimate_blur:Blur", options=f"{__name__}:BlurOptions")

    with using(Host(discover=False, plugins={"easyanimate-blur": Blur()})):
        command = options_of(GenerationRequest)(click.Command("any"))
        flags = [flag for option in command.params for flag in option.opts]
        assert flags.count("--blur") == flags.count("--strength") == 1
        made = command.make_context("any", ["--blur", "3", "--strength", "0.5"]).params
        assert values_given(GenerationRequest, made)["conditions"] == [
            {"name": "source-video", "strength": "0.5"},
            {"name": "blur", "radius": "3"},
        ]
