"""The manifest: in the file and beside it, read back; a file can be verified, shown and made again from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from easyanimate_core.cli.main import run
from easyanimate_core.data import Video
from easyanimate_core.engine import Engine, JobStore, Manifest, read_manifest
from easyanimate_core.engine.files import Made
from easyanimate_core.engine.replay import replay
from easyanimate_core.engine.verify import verify
from easyanimate_core.errors import ExecutionError, InvalidOptions, UnreadableMedia
from easyanimate_core.media.read import read_metadata, read_video
from easyanimate_core.media.seal import seal, stored_digest
from easyanimate_core.media.write import VideoWriter, Written, write_video
from easyanimate_core.request import GenerationRequest
from easyanimate_core.testing import write_checkpoint
from recorder import SMALL

Generate = Callable[..., tuple[Made, ...]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"), max_length=48)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(JobStore(tmp_path / "home"))


@pytest.fixture
def generate(engine: Engine, weights: Path, tmp_path: Path) -> Generate:
    def call(name: str = "clip.mp4", *, order: dict[str, Any] | None = None, **settings: Any) -> tuple[Made, ...]:
        frames = {"frames": 1} if name.endswith(".png") else {}
        request = GenerationRequest(**{**SMALL, "weights": weights, **frames, **settings})
        return engine.run(engine.submit(request, output=str(tmp_path / name), **(order or {})).id)

    return call


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.png"])
def test_one_document_in_the_file_and_beside_it(generate: Generate, engine: Engine, name: str) -> None:
    (made,) = generate(name, prompt="红色的圆")
    beside = json.loads(made.path.with_name(f"{name}.json").read_text(encoding="utf-8"))
    assert read_manifest(made.path) == made.manifest == Manifest.model_validate(beside)
    assert json.loads(read_metadata(made.path)["easyanimate"]) == beside
    assert beside["manifest"] == 1
    assert beside["request"]["prompt"] == "红色的圆"
    assert [finding.state for finding in verify(made.path, engine.store)] == ["ok"] * 4


def test_what_it_tells(generate: Generate, weights: Path) -> None:
    first, second = (item.manifest for item in generate(videos_per_prompt=2))
    assert first is not None
    assert second is not None
    assert first.job == second.job
    assert first.seeds == (7, 8)
    assert second.sample is not None
    assert second.sample.model_dump() == {"index": 1, "seed": 8}
    assert {file.path for file in first.model.weights} >= {"transformer/config.json", "vae/config.json"}
    assert sum(file.bytes for file in first.model.weights) == sum(
        path.stat().st_size for path in weights.rglob("*") if path.is_file()
    )
    assert first.ran.device == "cpu"
    assert first.ran.offload == "easyanimate-core:resident", "what 'auto' was"
    assert first.ran.placement == {"tiled": False, "apart": False}
    assert first.determinism == "exact"
    assert {"torch", "easyanimate-core", "python"} <= first.versions.keys()
    assert {"denoise", "decode", "total"} <= first.seconds.keys()
    assert GenerationRequest.model_validate(first.request).steps == 2


@pytest.mark.feature("C047", "C062")
def test_it_tells_how_weights_were_placed(generate: Generate, engine: Engine) -> None:
    offload = {"name": "stream", "budget": "200KiB", "source": "disk"}
    (made,) = generate(offload=offload, storage="float8")
    assert made.manifest is not None
    ran = made.manifest.ran
    assert ran.offload == {"name": "easyanimate-core:stream", "budget": 204800, "slots": 2, "source": "disk"}
    assert isinstance(ran.storage, dict)
    assert ran.storage["name"] == "easyanimate-core:float8"
    assert ran.storage["scaled"] is True
    stay, blocks = ran.placement["staying"]["denoiser"]
    assert 0 <= stay <= blocks == 2
    assert replay(read_manifest(made.path), engine).identical


@pytest.mark.feature("C062")
@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.png"])
def test_a_replay_makes_every_pixel_again(generate: Generate, engine: Engine, tmp_path: Path, name: str) -> None:
    made = generate(name, videos_per_prompt=2)[1]
    result = replay(read_manifest(made.path), engine)
    assert result.identical
    assert result.path is None
    assert engine.store.list()[-1].state == "done", "the replay itself is not in the list"
    kept = replay(read_manifest(made.path), engine, output=str(tmp_path / "again.gif"), force=True) if name == (
        "clip.gif"
    ) else None  # fmt: skip
    if kept is not None:
        assert kept.path is not None
        assert np.array_equal(read_video(kept.path)[0], read_video(made.path)[0])


def test_a_replay_says_when_frames_differ(generate: Generate, engine: Engine) -> None:
    manifest = generate()[0].manifest
    assert manifest is not None
    other = manifest.model_copy(update={"request": {**manifest.request, "seed": 99}, "versions": {"torch": "0.1"}})
    result = replay(other, engine)
    assert not result.identical
    assert any(line.startswith("torch: was 0.1, is ") for line in result.differences)


def test_changed_weights_are_noticed_and_not_replayed(
    generate: Generate, engine: Engine, weights: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(weights, tmp_path / "copy"))
    (made,) = generate(weights=copy)
    (path,) = (copy / "transformer").glob("*.safetensors")
    tensors = load_file(path)
    next(iter(tensors.values())).flatten()[0] += 1
    save_file(tensors, path)
    found = {finding.what: (finding.state, finding.said) for finding in verify(made.path, engine.store)}
    assert found["weights"] == ("changed", f"transformer/{path.name}")
    assert found["pictures"][0] == "ok"
    manifest = read_manifest(made.path)
    with pytest.raises(ExecutionError, match="weights are changed"):
        replay(manifest, engine)
    shutil.rmtree(copy)
    found = {finding.what: (finding.state, finding.said) for finding in verify(made.path, engine.store)}
    assert found["weights"][0] == "missing"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.png"])
def test_changed_pictures_are_noticed(generate: Generate, engine: Engine, tmp_path: Path, name: str) -> None:
    (made,) = generate(name)
    frames, fps = read_video(made.path)
    pixels = torch.from_numpy(255 - frames).float().div(255).permute(3, 0, 1, 2)[None]
    changed = write_video(
        Video(pixels, min(fps, 50), json.loads(read_metadata(made.path)["easyanimate"])), tmp_path / f"changed{name}"
    )
    states = {finding.what: finding.state for finding in verify(changed, engine.store)}
    assert states["pictures"] == "changed"


def test_a_changed_sidecar_is_noticed(generate: Generate, engine: Engine) -> None:
    (made,) = generate()
    sidecar = made.path.with_name("clip.mp4.json")
    sidecar.write_text(sidecar.read_text(encoding="utf-8").replace("a red circle", "a blue circle"), encoding="utf-8")
    assert {f.what: f.state for f in verify(made.path, engine.store)}["sidecar"] == "changed"


def test_without_a_manifest_a_file_tells_nothing(generate: Generate, tmp_path: Path) -> None:
    (made,) = generate(order={"manifest": False, "sidecar": False})
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["clip.mp4"]
    assert "easyanimate" not in read_metadata(made.path)
    assert made.manifest is not None, "the caller is told all the same"
    with pytest.raises(UnreadableMedia, match="has no manifest") as caught:
        read_manifest(made.path)
    assert "--no-manifest" in caught.value.hint


def test_later_fields_are_ignored_and_later_versions_refused(generate: Generate, tmp_path: Path) -> None:
    manifest = generate()[0].manifest
    assert manifest is not None
    path = tmp_path / "later.json"
    path.write_text(json.dumps({**manifest.as_json(), "new": 1}), encoding="utf-8")
    assert read_manifest(path) == manifest
    path.write_text(json.dumps({**manifest.as_json(), "manifest": 2}), encoding="utf-8")
    with pytest.raises(InvalidOptions, match="manifest"):
        read_manifest(path)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_text_is_put_in_without_touching_a_picture(tmp_path: Path, suffix: str) -> None:
    frames = torch.rand(1 if suffix == ".png" else 7, 20, 30, 3, generator=torch.Generator().manual_seed(0))
    path, told = tmp_path / f"clip{suffix}", []
    with VideoWriter(path, fps=8, metadata=lambda written: told.append(written) or {}) as writer:  # type: ignore[func-returns-value]
        writer.write(frames)
    (written,) = told
    assert isinstance(written, Written)
    assert (written.frames, written.height, written.width) == (len(frames), 20, 30)
    before = read_video(path)[0] if suffix != ".png" else np.asarray(Image.open(path))
    assert stored_digest(path) == written.stored_sha256
    long = "红" * 2000  # more than one block of a gif
    seal(path, {"easyanimate": long, "title": "a: b"})
    assert read_metadata(path)["easyanimate"] == long
    assert read_metadata(path)["title"] == "a: b"
    assert stored_digest(path) == written.stored_sha256
    after = read_video(path)[0] if suffix != ".png" else np.asarray(Image.open(path))
    assert np.array_equal(before, after)


def test_a_png_holds_the_frames_themselves(tmp_path: Path) -> None:
    told: list[Written] = []
    with VideoWriter(tmp_path / "a.png", fps=8, metadata=lambda w: told.append(w) or {}) as writer:  # type: ignore[func-returns-value]
        writer.write(np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3))
    assert told[0].stored_sha256 == told[0].frames_sha256


class TestCommands:
    """`show`, `verify`, `replay`, and a sidecar as a job file."""

    @pytest.fixture
    def clip(self, generate: Generate) -> Path:
        return generate()[0].path

    def test_show(self, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["show", str(clip)]) == 0
        out = capsys.readouterr().out
        assert "a red circle moving right" in out
        assert "5 frames of 32x48 px at 8 frames/s" in out
        assert run(["show", str(clip), "--json"]) == 0
        assert Manifest.model_validate_json(capsys.readouterr().out) == read_manifest(clip)

    def test_verify_is_an_exit_status(self, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["verify", str(clip)]) == 0
        other = write_video(Video(torch.zeros(1, 3, 5, 32, 48), 8, read_manifest(clip).as_json()), tmp_path / "x.mp4")
        capsys.readouterr()
        assert run(["verify", str(other), "--json"]) == 4
        out, err = capsys.readouterr()
        assert {item["what"]: item["state"] for item in json.loads(out)}["pictures"] == "changed"
        assert "the pictures of" in err

    def test_replay(self, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["replay", str(clip), "--output", str(tmp_path / "again.mp4")]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'again.mp4'}\n"
        assert np.array_equal(read_video(tmp_path / "again.mp4")[0], read_video(clip)[0])

    def test_a_file_of_others_has_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_video(Video(torch.zeros(1, 3, 5, 32, 48), 8), tmp_path / "x.mp4")
        for command in ("show", "verify", "replay"):
            assert run([command, str(path)]) == 4
            assert "has no manifest" in capsys.readouterr().err
