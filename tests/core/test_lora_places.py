"""Where a LoRA may be: a file, a folder, or a repository that was downloaded; the network is never asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from easyanimate_core.checkpoints import modelscope
from easyanimate_core.checkpoints.hub import Repo, file_of
from easyanimate_core.checkpoints.lora import (
    LAYOUTS,
    LoraFile,
    LowRank,
    linear_names,
    locate_lora,
    read_lora,
    write_lora,
)
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.engine import Engine, JobStore
from easyanimate_core.engine.verify import verify
from easyanimate_core.errors import CheckpointNotFound
from easyanimate_core.pipeline import load
from easyanimate_core.request import GenerationRequest
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG
from hub_server import COMMIT
from recorder import SMALL

REPO = "somebody/Styles"
MS = f"modelscope:{REPO}"


@pytest.fixture(scope="module")
def lora() -> LoraFile:
    """A small LoRA for the tiny model."""
    with torch.device("meta"):
        model = MMDiT(**TRANSFORMER_CONFIG)
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for name in linear_names(model):
        out, inside = model.get_parameter(f"{name}.weight").shape
        up, down = torch.randn(out, 2, generator=generator), torch.randn(2, inside, generator=generator)
        layers["denoiser", name] = LowRank(down, up, 2.0)
    return LoraFile(Path("x"), "diffusers", layers, {}, 0)


@pytest.fixture
def huggingface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the repository in an empty cache of Hugging Face."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    home = tmp_path / "hf" / f"models--{REPO.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    snapshot = home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


@pytest.fixture
def on_modelscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in ModelScope's."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    folder = modelscope.cache_folder(REPO)
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (REPO, (Repo("huggingface", REPO), "")),
        (f"{REPO}:a.safetensors", (Repo("huggingface", REPO), "a.safetensors")),
        (f"hf:{REPO}:deep/a.safetensors", (Repo("huggingface", REPO), "deep/a.safetensors")),
        (f"{MS}:a.safetensors", (Repo("modelscope", REPO), "a.safetensors")),
        (f"{REPO}:../a.safetensors", None),
        (f"{REPO}:/etc/passwd", None),
        (f"{REPO}:a\\b", None),
        ("a/b/c:file", None),
        ("style.safetensors", None),
        ("./a/b", None),
        ("ftp:a/b:file", None),
    ],
)
def test_a_repository_s_file_is_told_from_a_path(written: str, meant: tuple[Repo, str] | None) -> None:
    assert file_of(written) == meant


@pytest.mark.feature("C054")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_downloaded_is_read_like_a_file(
    huggingface: Path, on_modelscope: Path, lora: LoraFile, layout: str
) -> None:
    name = "adapter" if layout == "peft" else "style.safetensors"
    for place, repo in ((huggingface, REPO), (on_modelscope, MS)):
        here = place if layout == "peft" else place / name
        assert write_lora(lora, here, layout).exists()
        found = read_lora(repo)
        assert (found.path, found.layout) == (here, layout)
        if layout != "peft":
            assert locate_lora(f"{repo}:{name}") == here


def test_of_several_files_one_has_to_be_named(huggingface: Path) -> None:
    for name in ("hps.safetensors", "deep/mps.safetensors"):
        (huggingface / name).parent.mkdir(exist_ok=True)
        (huggingface / name).write_bytes(b"")
    with pytest.raises(CheckpointNotFound, match=r"holds 2 files .*: deep/mps.safetensors, hps.safetensors") as caught:
        locate_lora(REPO)
    assert caught.value.hint == f"Say which: {REPO}:deep/mps.safetensors"
    assert locate_lora(f"{REPO}:deep/mps.safetensors") == huggingface / "deep" / "mps.safetensors"


def test_what_is_not_here_says_how_to_get_it(huggingface: Path, on_modelscope: Path) -> None:
    told = {
        "other/Styles:a.safetensors": "easyanimate models pull other/Styles:a.safetensors",
        "modelscope:other/Styles": "easyanimate models pull modelscope:other/Styles",
        f"{REPO}:a.safetensors": f"easyanimate models pull {REPO}:a.safetensors",
        "loras/style.safetensors": "Give a file as PATH or PATH=WEIGHT",
        "style": "Give a file as PATH or PATH=WEIGHT",
    }
    for written, hint in told.items():
        with pytest.raises(CheckpointNotFound) as caught:
            locate_lora(written)
        assert written.removeprefix(f"{REPO}:") in caught.value.message
        assert hint in caught.value.hint


def test_a_path_goes_before_a_repository(huggingface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (huggingface / "one.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert locate_lora(REPO) == huggingface / "one.safetensors"
    Path(REPO).mkdir(parents=True)
    assert locate_lora(REPO) == Path(REPO)


@pytest.mark.feature("C054", "C061")
def test_a_run_with_one_is_recorded_and_verifies(huggingface: Path, lora: LoraFile, tmp_path: Path) -> None:
    written = write_lora(lora, huggingface / "style.safetensors", "kohya")
    weights = write_checkpoint(tmp_path / "model", max_length=48)
    spelt = f"{REPO}:style.safetensors"
    small = {**SMALL, "weights": str(weights), "frames": 1, "steps": 1}
    engine = Engine(JobStore(tmp_path / "home"))
    job = engine.submit(
        GenerationRequest(**small, loras=(f"{spelt}=0.5",)),
        output=str(tmp_path / "a.png"),
    )
    (made,) = engine.run(job.id)
    assert made.manifest is not None
    assert made.manifest.request["loras"] == [{"path": spelt, "weight": 0.5}]
    assert [(file.path, file.bytes) for file in made.manifest.inputs] == [(spelt, written.stat().st_size)]
    assert {finding.what: finding.state for finding in verify(made.path, engine.store)}["inputs"] == "ok"
    one, other = (load("nano", weights=weights, loras=[(path, 0.5)]) for path in (spelt, written))
    assert torch.equal(one(**{**small, "weights": None}).frames, other(**{**small, "weights": None}).frames)
    written.unlink()
    assert {finding.what: finding.state for finding in verify(made.path, engine.store)}["inputs"] == "missing"
