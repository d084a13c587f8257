"""`easyanimate control`, the flags of conditions, and the commands of docs/how-to/control.md."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from easyanimate_control.camera.files import read_camera
from easyanimate_control.trajectory.tracks import read_tracks
from easyanimate_core.cli.main import run
from easyanimate_core.media.read import read_image, read_video
from easyanimate_core.media.write import VideoWriter
from easyanimate_core.testing.tiny import write_v5_checkpoint
from inpainting import clip, picture, written
from workspace import ROOT

PAGE = (ROOT / "docs" / "how-to" / "control.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ easyanimate ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ easyanimate ")
]

Said = tuple[int, str, str]
Call = Callable[..., Said]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `easyanimate …` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def calling(*args: str) -> Said:
        status = run(args)
        out, err = capsys.readouterr()
        return status, out, err

    return calling


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with the channels of control and camera models."""
    folder = tmp_path_factory.mktemp("weights")
    return {name: written(folder / name, channels) for name, channels in (("control", 48), ("camera", 38))}


@pytest.mark.feature("K001", "K004", "K009", "K011", "K013")
def test_the_commands_of_the_page_work(call: Call, weights: dict[str, Path]) -> None:
    for index, name in enumerate(("robot", "castle")):
        Image.fromarray(picture(index, height=96, width=96)).save(f"{name}.png")
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    Path("castle.toml").write_text(toml, encoding="utf-8")
    with VideoWriter("dance.mp4", fps=24) as writer:
        writer.write(np.ascontiguousarray(clip(30, height=128, width=128)))
    assert len(COMMANDS) >= 12
    for command in COMMANDS:
        arguments = shlex.split(command.replace("--frames 49", "--frames 9"))
        if arguments[0] == "generate":
            kind = "camera" if "castle" in command else "control"
            arguments += ["--model", f"v5.1-7b-{kind}", "--weights", str(weights[kind])]
            arguments += ["--size", "128x128", "--frames", "9", "--steps", "1", "--seed", "1"]
        status, out, err = call(*arguments)
        assert status == 0, f"{command}\n{err}"
        if arguments[0] == "generate":
            assert read_video(out.strip())[0].shape == (9, 128, 128, 3)
    assert len(read_video("path.mp4")[0]) == 9
    assert read_image("path.png").shape == (592, 960, 3)
    assert len(read_video("soft.mp4")[0]) == 9
    assert read_image("paths.png").std() > 10


@pytest.mark.feature("C036")
def test_the_older_control_model_follows_a_video_too(call: Call) -> None:
    """V5's has 16 + 16 input channels."""
    weights = str(write_v5_checkpoint(Path("v5"), in_channels=32))
    with VideoWriter("dance.mp4", fps=8) as writer:
        writer.write(np.ascontiguousarray(clip(9, height=128, width=128)))
    line = ["generate", "a dancer", "--model", "v5-12b-control", "--weights", weights, "--steps", "1", "--seed", "1"]
    status, out, err = call(*line, "--size", "128x128", "--frames", "5", "--control-video", "dance.mp4")
    assert status == 0, err
    assert read_video(out.strip())[0].shape == (5, 128, 128, 3)


@pytest.mark.feature("K009")
def test_a_camera_file_says_what_was_asked(call: Call) -> None:
    status, out, _ = call("control", "camera", "a/pan.json", "--move", "zoom-in*2, roll-cw", "--frames", "12")
    assert (status, out) == (0, "a/pan.json\n")
    path = read_camera("a/pan.json")
    assert len(path) == 12
    assert path.poses[5, 2, 3] == pytest.approx(-5.0)
    call("control", "camera", "pan.txt", "--move", "pan-up", "--speed", "-1", "--focal", "0.8", "--frames", "2")
    assert Path("pan.txt").read_text().splitlines()[0] == "pan-up"
    assert read_camera("pan.txt").lenses[0].tolist() == pytest.approx([0.8, 0.8 * 16 / 9, 0.5, 0.5])
    assert read_camera("pan.txt").poses[1, 1, 3] == pytest.approx(-0.75)


@pytest.mark.feature("K004", "K005")
def test_a_trajectory_is_json_or_the_control_video(call: Call) -> None:
    paths = ("10,10 110,80", "60,20")
    assert call("control", "trajectory", *paths, "t.json", "--size", "96x128")[0] == 0
    tracks = read_tracks("t.json")
    assert [path.tolist() for path in tracks.paths] == [[[10, 10], [110, 80]], [[60, 20]]]
    assert (tracks.height, tracks.width) == (96, 128)
    assert call("control", "trajectory", *paths, "t.mp4", "--size", "96x128", "--frames", "9")[0] == 0
    frames, fps = read_video("t.mp4")
    assert (frames.shape, fps) == ((9, 96, 128, 3), 8)
    assert frames[0, 10, 10].min() > 200
    assert frames[8, 80, 110].min() > 200
    assert frames[8, 10, 10].max() < 30


def test_previews_show_what_moves(call: Call) -> None:
    call("control", "camera", "still.txt", "--move", "static", "--frames", "5")
    call("control", "camera", "left.txt", "--move", "pan-left", "--frames", "5")
    for name in ("still", "left"):
        assert call("control", "preview", f"{name}.txt", "-o", f"{name}.gif")[0] == 0
    still, left = read_video("still.gif")[0], read_video("left.gif")[0]
    views = [frames[:, 26:, :480].astype(int) for frames in (still, left)]  # the left panel: what the camera sees
    assert np.abs(views[0][0] - views[1][0]).mean() < 1
    assert np.abs(views[0][4] - views[0][0]).mean() < 1
    assert np.abs(views[1][4] - views[1][0]).mean() > 4


@pytest.mark.feature("K005", "K007", "K011")
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("control camera a.txt --move pan-lfet", 2, "Did you mean 'pan-left'?"),
        ("control camera a.mp4 --move pan-left", 2, "cannot write 'a.mp4'"),
        ("control camera there.txt --move pan-left", 2, "'there.txt' exists already"),
        ("control camera a.txt --move pan-left --focal 0", 2, "'focal' is '0.0': it must be more than 0"),
        ("control trajectory 10;10 a.json", 2, "'10;10' is no point"),
        ("control trajectory 10,10 a.json --size 96", 2, "must be HEIGHTxWIDTH"),
        ("control trajectory 900,10 a.json --size 96x128", 2, "no point of track 1 is inside the frame"),
        ("control trajectory 10,10 a.avi", 4, "cannot write '.avi' files"),
        ("control preview none.txt", 2, "cannot read the camera file 'none.txt'"),
        ("control preview there.txt", 2, "'there.txt', line 2 has '3' numbers"),
        ("control preview points.json", 2, "does not say on what picture its points are"),
        ("control preprocess cany a.mp4 b.mp4", 2, "Did you mean 'canny'?"),
        ("control preprocess canny none.mp4 b.mp4", 4, "'none.mp4' does not exist"),
        ("control preprocess canny there.txt b.mp4 --set low=x", 2, "'low' is 'x'"),
        ("control overlay none.mp4 none.mp4 c.mp4", 4, "'none.mp4' does not exist"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(call: Call, arguments: str, status: int, said: str) -> None:
    Path("there.txt").write_text("title\n1 2 3\n")
    Path("points.json").write_text("[[1, 2]]")
    before = sorted(path.name for path in Path().iterdir())
    got, out, err = call(*arguments.split(" "))
    assert (got, out) == (status, "")
    assert said in err
    assert len(err.strip().splitlines()) <= 2
    assert sorted(path.name for path in Path().iterdir()) == before


def test_options_are_listed(call: Call) -> None:
    out = call("control", "options")[1]
    assert {line.split()[0] for line in out.splitlines()[1:]} >= {"canny", "depth", "lines", "pose"}
    assert "Gradients below this are no edges" in call("control", "options", "canny")[1]


def test_help_loads_no_model_library() -> None:
    code = (
        "import sys\nfrom easyanimate_core.cli.main import run\n"
        "assert run(['control', '--help']) == run(['control', 'camera', '--help']) == 0\n"
        "assert not {'torch', 'numpy', 'av', 'PIL', 'cv2', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
