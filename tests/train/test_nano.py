"""The embedded model: its files, and that its videos show what prompts say."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import easyanimate_core as ea
from easyanimate_core.checkpoints.save import write_tensors
from easyanimate_core.checkpoints.source import parts
from easyanimate_core.cli.main import run
from easyanimate_core.errors import CheckpointNotFound
from easyanimate_core.testing import write_checkpoint
from easyanimate_train.nano.blueprint import write_blueprint
from easyanimate_train.nano.release import FAMILY, LIMIT, export
from easyanimate_train.nano.score import SPLITS, Cases, score_prompts
from easyanimate_train.nano.trials import score_trial
from easyanimate_train.shapes import COLOURS, Scene, all_scenes, captions, is_held_out, parse, read

NANO = Path(str(resources.files("easyanimate_core.presets"))) / "nano"


def test_the_released_files_are_small_and_only_weights_and_configs() -> None:
    files = [path for name in FAMILY for path in (NANO.parent / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT
    assert sum(path.stat().st_size for path in NANO.rglob("*") if path.is_file()) <= 12_000_000
    assert {path.suffix for path in files} <= {".json", ".jinja", ".txt", ".safetensors"}
    assert {path.name for path in NANO.iterdir()} == {"transformer", "vae", "text_encoder", "tokenizer", "scheduler"}
    for path in (path for path in files if path.suffix == ".safetensors"):
        with safe_open(path, "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_released_configs_are_those_of_the_blueprint(tmp_path: Path) -> None:
    blueprint = write_blueprint(tmp_path)
    for name in ("transformer", "vae", "text_encoder"):
        planned = json.loads((blueprint / name / "config.json").read_text("utf-8"))
        released = json.loads((NANO / name / "config.json").read_text("utf-8"))
        different = {key for key, value in planned.items() if released.get(key) != value}
        # Measured in training, so that latents have unit spread.
        assert different <= {"scaling_factor"}
    assert (NANO / "tokenizer" / "tokenizer.json").read_bytes() == (
        blueprint / "tokenizer" / "tokenizer.json"
    ).read_bytes()


def test_every_caption_fits_the_padded_length() -> None:
    encoder = ea.load("nano").prepare().text_encoders[0]
    texts = [text for scene in all_scenes()[::61] for text in captions(scene)]
    _, mask = encoder.tokenize(texts)  # type: ignore[attr-defined]
    assert mask[:, -1].sum() == 0


@pytest.mark.parametrize("split", SPLITS)
def test_cases_are_of_their_split_and_repeatable(split: str) -> None:
    cases = Cases.draw(split, 40)
    assert cases == Cases.draw(split, 40)
    assert cases != Cases.draw(split, 40, seed=1)
    assert len(set(cases.scenes)) == 40
    assert all(is_held_out(scene) == (split == "held-out") for scene in cases.scenes)
    assert [parse(text) for text in cases.prompts] == list(cases.scenes)


@pytest.mark.parametrize("split", SPLITS)
def test_videos_show_what_prompts_say(split: str) -> None:
    """A sample of the release gate, which takes 300 prompts of each split: `easyanimate nano score`."""
    percent = score_prompts(ea.load("nano"), Cases.draw(split, 20, seed=11))
    assert all(percent[name] >= 90 for name in ("shape", "colour", "background", "size", "motion")), percent
    assert percent["all"] >= 80, percent


@pytest.mark.parametrize(
    ("model", "trial", "least"),
    [
        ("v5.1-nano-inp", "picture", {"all": 80, "motion": 90, "psnr": 29}),
        ("v5.1-nano-inp", "ends", {"all": 80, "psnr": 28, "psnr_last": 28}),
        ("v5.1-nano-inp", "conflict", {"follows": 80}),
        ("v5.1-nano-control", "outline", {"iou": 80, "colour": 80}),
        ("v5.1-nano-camera", "camera-picture", {"direction": 80}),
    ],
)
def test_videos_show_what_is_given(model: str, trial: str, least: dict[str, float]) -> None:
    """A sample of the release gates: `easyanimate nano score --model … --trial …`."""
    found = score_trial(ea.load(model), trial, "held-out", 10, seed=3)
    assert all(found[name] >= value for name, value in least.items()), found


def test_words_alone_are_enough_for_a_model_of_pictures() -> None:
    percent = score_prompts(ea.load("v5.1-nano-inp"), Cases.draw("held-out", 10, seed=12))
    assert percent["all"] >= 80, percent


@pytest.mark.feature("C006")
@pytest.mark.parametrize(
    "prompt", ["a red circle moving right on a blue background", "蓝色背景上，一个大红色圆形向右移动"]
)
def test_the_first_video_shows_its_prompt(prompt: str) -> None:
    video = ea.load("nano")(prompt=prompt, seed=43)
    assert read(video.frames[0]).scene == Scene("circle", "red", "blue", "large", "right")


def test_outlines_do_not_wobble() -> None:
    """The shape that stands still is nearly the same picture in every frame."""
    video = ea.load("nano")(prompt="a green square standing still on a white background", seed=1)
    frames = video.frames[0]
    assert (frames - frames.mean(1, keepdim=True)).abs().mean() < 0.02


@pytest.mark.feature("C026")
def test_tiles_come_close_to_the_whole() -> None:
    """On the smoothest input, plain paint: per-frame norms see each tile alone, so content would shift them."""
    vae = ea.load("nano").prepare().vae
    paint = torch.tensor(COLOURS["blue"]) * 2 - 1
    pixels = paint[None, :, None, None, None].expand(1, 3, 5, 128, 128)
    with torch.no_grad():
        whole = vae.decode_video(vae.encode_video(pixels))
        vae.set_tiling(True, size=64)  # type: ignore[attr-defined]
        tiled = vae.decode_video(vae.encode_video(pixels))
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.02


def runs(root: Path, *, wide: bool = False) -> Path:
    """Finished runs as `easyanimate nano make` leaves them, tiny."""
    write_checkpoint(root / "motion" / "final")
    write_checkpoint(root / "vae-video" / "final", seed=1)
    if wide:
        write_tensors(root / "motion" / "final" / "transformer" / "extra.safetensors", {"x": torch.zeros(LIMIT // 2)})
    return root


def test_export_takes_the_vae_from_its_own_run(tmp_path: Path) -> None:
    total = export(runs(tmp_path), tmp_path / "release")
    assert total == sum(p.stat().st_size for p in (tmp_path / "release").rglob("*") if p.is_file())
    for part, source in (("vae", "vae-video"), ("transformer", "motion")):
        name = "diffusion_pytorch_model.safetensors"
        with (
            safe_open(tmp_path / "release" / "nano" / part / name, "pt") as released,
            safe_open(tmp_path / source / "final" / part / name, "pt") as trained,
        ):
            key = next(iter(released.keys()))
            assert torch.equal(released.get_tensor(key), trained.get_tensor(key).half())


def test_export_shares_all_but_the_denoiser(tmp_path: Path) -> None:
    root = runs(tmp_path)
    write_checkpoint(root / "inp-fine" / "final", seed=2)
    export(root, tmp_path / "release")
    assert {path.name for path in (tmp_path / "release").iterdir()} == {"nano", "nano-inp"}
    assert {path.name for path in (tmp_path / "release" / "nano-inp").iterdir()} == {"transformer", "shared.json"}
    found = parts(tmp_path / "release" / "nano-inp")
    assert found["vae"].parent.name == "nano"
    assert found["transformer"].parent.name == "nano-inp"


def test_export_replaces_nothing_by_something_too_large(tmp_path: Path) -> None:
    root = runs(tmp_path, wide=True)
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "kept").touch()
    with pytest.raises(ValueError, match="more than 40,000,000"):
        export(root, tmp_path / "release")
    assert (tmp_path / "release" / "kept").exists()


def test_export_needs_finished_runs(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="nano make"):
        export(tmp_path, tmp_path / "release")


def test_score_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nano", "score", "--prompts", "1", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| split | shape | colour |")
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(SPLITS)
