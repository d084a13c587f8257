"""`easyanimate generate` from end to end, on a tiny checkpoint with random weights."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from easyanimate_core import Host, using
from easyanimate_core.cli.main import run
from easyanimate_core.events import Event, Step
from easyanimate_core.media.read import read_metadata, read_video
from easyanimate_core.plugins import hookimpl
from easyanimate_core.testing import write_checkpoint

EASYANIMATE = Path(sys.executable).parent / "easyanimate"
PROMPT = "a red circle moving right on a blue background"

Said = tuple[int, str, str]
Generate = Callable[..., Said]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"), max_length=48)


@pytest.fixture
def generate(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Generate:
    """Run `easyanimate generate` in an empty folder: status, stdout, stderr. Two steps of a few small frames."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str, weights: Path = weights) -> Said:
        small = ["--weights", str(weights), "--size", "32x48", "--frames", "5", "--steps", "2"]
        status = run(["generate", *small, *args])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.feature("C060")
def test_the_installed_command_prints_the_path_and_nothing_else(weights: Path, tmp_path: Path) -> None:
    line = [
        EASYANIMATE,
        "generate",
        PROMPT,
        "--weights",
        weights,
        "--steps",
        "2",
        "--frames",
        "5",
        "-o",
        "new/demo.mp4",
    ]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "new/demo.mp4\n", "")
    assert files(tmp_path) == ["new/demo.mp4", "new/demo.mp4.json"]


@pytest.mark.feature("C061")
def test_numbered_files_with_a_sidecar_each(generate: Generate, tmp_path: Path) -> None:
    assert generate(PROMPT)[1] == "outputs/00000001.mp4\n"
    assert generate(PROMPT)[1] == "outputs/00000002.mp4\n"
    assert generate(PROMPT, "--frames", "1")[1] == "outputs/00000003.png\n"
    assert files(tmp_path) == [
        "outputs/00000001.mp4",
        "outputs/00000001.mp4.json",
        "outputs/00000002.mp4",
        "outputs/00000002.mp4.json",
        "outputs/00000003.png",
        "outputs/00000003.png.json",
    ]


@pytest.mark.feature("C046")
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_size_length_and_rate_are_those_asked_for(generate: Generate, suffix: str) -> None:
    assert generate(PROMPT, "-o", f"clip{suffix}", "--fps", "10", "--scale", "2")[0] == 0
    frames, fps = read_video(f"clip{suffix}")
    assert frames.shape == (5, 64, 96, 3)
    assert fps == pytest.approx(10, rel=0.01)


def test_one_frame_is_a_picture(generate: Generate) -> None:
    assert generate(PROMPT, "-o", "frame.png", "--frames", "1")[0] == 0
    with Image.open("frame.png") as picture:
        assert picture.size == (48, 32)


@pytest.mark.feature("C061")
def test_the_sidecar_makes_the_same_video_again(generate: Generate) -> None:
    assert generate(PROMPT, "-o", "first.mp4", "--guidance", "3")[0] == 0
    sidecar = json.loads(Path("first.mp4.json").read_text(encoding="utf-8"))
    assert sidecar["request"]["prompt"] == PROMPT
    assert isinstance(sidecar["request"]["seed"], int), "the drawn seed is recorded"
    assert sidecar["video"] == {"frames": 5, "height": 32, "width": 48, "fps": 8.0}
    assert {"load", "denoise", "decode", "save", "total"} <= sidecar["seconds"].keys()
    assert "torch" in sidecar["versions"]

    assert generate("first.mp4.json", "-o", "again.mp4")[0] == 0
    assert generate("first.mp4.json", "-o", "other.mp4", "--seed", "1")[0] == 0
    first, again, other = (read_video(f"{name}.mp4")[0] for name in ("first", "again", "other"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_several_videos_of_one_prompt(generate: Generate) -> None:
    status, out, _ = generate(PROMPT, "-o", "clip.mp4", "--videos-per-prompt", "2", "--seed", "7", "--json")
    made = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [item["file"] for item in made] == ["clip-1.mp4", "clip-2.mp4"]
    assert [item["sample"] for item in made] == [{"index": 0, "seed": 7}, {"index": 1, "seed": 8}]
    for item in made:
        assert {"file": item["file"], **json.loads(Path(f"{item['file']}.json").read_text())} == item


@pytest.mark.feature("C006")
def test_a_chinese_prompt_arrives_in_the_file(generate: Generate) -> None:
    prompt = "一个红色的圆在蓝色背景上向右移动"
    status, out, _ = generate(prompt, "-o", "圆.mp4", "--json")
    assert status == 0
    assert json.loads(out)["request"]["prompt"] == prompt
    assert json.loads(Path("圆.mp4.json").read_text(encoding="utf-8"))["request"]["prompt"] == prompt
    assert json.loads(read_metadata("圆.mp4")["easyanimate"])["request"]["prompt"] == prompt


def test_files_are_kept_unless_overwrite(generate: Generate, tmp_path: Path) -> None:
    assert generate(PROMPT, "-o", "clip.mp4", "--no-sidecar")[0] == 0
    assert files(tmp_path) == ["clip.mp4"]
    before = Path("clip.mp4").read_bytes()
    status, out, err = generate(PROMPT, "-o", "clip.mp4")
    assert (status, out) == (4, "")
    assert err.startswith("error: 'clip.mp4' exists already\nhint: Pass --overwrite")
    assert Path("clip.mp4").read_bytes() == before
    assert generate(PROMPT, "-o", "clip.mp4", "--overwrite")[0] == 0
    assert Path("clip.mp4").read_bytes() != before


def test_what_the_model_rounds_is_said(generate: Generate) -> None:
    status, out, err = generate(PROMPT, "-o", "clip.mp4", "--size", "40x48", "--frames", "7")
    assert (status, out) == (0, "clip.mp4\n")
    assert err == (
        "note: the size 40x48 becomes 32x48: sides are multiples of 16 pixels\n"
        "note: 7 frames become 5: this model makes multiples of 4, plus 1\n"
    )


class TestStopping:
    """Ctrl-C in the middle: one line, status 4, nothing left behind."""

    def test_at_a_step(self, generate: Generate, tmp_path: Path) -> None:
        steps = []

        class Impatient:
            @hookimpl
            def easyanimate_event(self, event: Event) -> None:
                if isinstance(event, Step):
                    steps.append(event.index)
                    if event.index == 2:
                        signal.raise_signal(signal.SIGINT)

        with using(Host(discover=False, plugins={"easyanimate-impatient": Impatient()})):
            status, out, err = generate(PROMPT, "-o", "new/clip.mp4", "--steps", "50")
        assert (status, out) == (4, "")
        assert "note: stopping; Ctrl-C again stops at once\n" in err
        assert "error: the run was cancelled" in err
        assert steps == [0, 1, 2], "it stops at the next check, not at the end"
        assert files(tmp_path) == []

    def test_from_outside(self, weights: Path, tmp_path: Path) -> None:
        line = [EASYANIMATE, "generate", PROMPT, "--weights", weights, "--steps", "1000", "-o", "clip.mp4"]
        process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, encoding="utf-8")
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 4
        assert "error: " in err
        assert "Traceback" not in err
        assert files(tmp_path) == []


class TestBadCheckpoints:
    """One line and a hint, status 3, no file; before any step is taken."""

    @pytest.fixture
    def copy(self, weights: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(weights, tmp_path / "weights"))

    def refused(self, generate: Generate, copy: Path) -> str:
        status, out, err = generate(PROMPT, "-o", "clip.mp4", weights=copy)
        assert (status, out) == (3, "")
        assert err.count("\n") == 2
        assert err.startswith("error: ")
        assert "\nhint: " in err
        assert not Path("clip.mp4").exists()
        return err

    def transformer(self, copy: Path) -> Path:
        (path,) = (copy / "transformer").glob("*.safetensors")
        return path

    def test_missing_folder(self, generate: Generate, tmp_path: Path) -> None:
        assert "nowhere" in self.refused(generate, tmp_path / "nowhere")

    def test_missing_component(self, generate: Generate, copy: Path) -> None:
        shutil.rmtree(copy / "vae")
        assert "vae" in self.refused(generate, copy)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
    def test_truncated(self, generate: Generate, copy: Path, share: float) -> None:
        path = self.transformer(copy)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        assert path.name in self.refused(generate, copy)

    def test_not_safetensors(self, generate: Generate, copy: Path) -> None:
        self.transformer(copy).write_bytes(b"<html>404 not found</html>" * 100)
        self.refused(generate, copy)

    def test_weights_of_something_else(self, generate: Generate, copy: Path) -> None:
        (vae,) = (copy / "vae").glob("*.safetensors")
        shutil.copy(vae, self.transformer(copy))
        self.refused(generate, copy)

    def test_not_finite(self, generate: Generate, copy: Path) -> None:
        path = self.transformer(copy)
        tensors = load_file(path)
        name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
        tensors[name][0, 0] = torch.nan
        save_file(tensors, path)
        assert name in self.refused(generate, copy)
