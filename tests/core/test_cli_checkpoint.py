"""`easyanimate checkpoint`, `models` and `--lora`: every command of the how-to pages runs."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from easyanimate_core.checkpoints.lora import LoraFile, LowRank, linear_names, write_lora
from easyanimate_core.cli.main import run
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.media.read import read_metadata, read_video
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG
from workspace import ROOT

PAGES = {
    name: (ROOT / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8") for name in ("checkpoints", "lora")
}

Said = tuple[int, str, str]
Say = Callable[..., Said]


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", PAGES[page], flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ easyanimate ") for line in lines)
    return [line.removeprefix("$ easyanimate ") for line in lines]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages talk of."""
    place = tmp_path_factory.mktemp("models")
    write_checkpoint(place / "my-model", max_length=48)
    write_checkpoint(place / "other-model", max_length=48, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        model = MMDiT(**TRANSFORMER_CONFIG)
    shapes = {name: tuple(model.get_parameter(f"{name}.weight").shape) for name in linear_names(model)}
    for name in ("style", "face"):
        layers = {
            ("denoiser", path): LowRank(
                torch.randn(2, inside, generator=generator), torch.randn(out, 2, generator=generator), 2.0
            )
            for path, (out, inside) in shapes.items()
        }
        write_lora(LoraFile(place, "diffusers", layers, {}, 0), place / f"{name}.safetensors", "kohya")
    return place


@pytest.fixture
def say(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line beside the models: status, stdout, stderr."""
    monkeypatch.chdir(models)

    def call(*args: str) -> Said:
        status = run(args)
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.mark.feature("C054", "C020", "C067")
@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_commands_of_a_page_work_one_after_the_other(say: Say, page: str) -> None:
    assert len(commands(page)) >= 6
    for command in commands(page):
        arguments = shlex.split(command)
        if arguments[0] == "generate":
            arguments += ["--size", "32x32", "--frames", "1", "--steps", "1", "--seed", "1"]
        status, out, err = say(*arguments)
        assert (status, bool(out)) == (0, True), (command, err)


@pytest.mark.feature("C054")
def test_a_lora_changes_the_video_and_is_told(say: Say, tmp_path: Path) -> None:
    def made(name: str, *loras: str) -> torch.Tensor:
        flags = [word for lora in loras for word in ("--lora", lora)]
        small = ["--weights", "my-model", "--size", "32x32", "--frames", "5", "--steps", "2", "--seed", "1"]
        status, out, err = say("generate", "a red circle", *small, *flags, "--output", str(tmp_path / name))
        assert status == 0, err
        assert err.count("27 of 27 layers applied") == len(loras)
        return torch.as_tensor(read_video(Path(out.strip()))[0])

    plain = made("plain.mp4")
    assert torch.equal(made("off.mp4", "style.safetensors=0"), plain)
    styled = made("styled.mp4", "style.safetensors=0.5")
    assert not torch.equal(styled, plain)
    assert not torch.equal(made("both.mp4", "style.safetensors=0.5", "face.safetensors=0.5"), styled)
    assert "style.safetensors" in json.dumps(read_metadata(tmp_path / "styled.mp4"))


@pytest.mark.feature("C054")
def test_a_lora_that_is_not_there_ends_the_run_before_weights_are_read(say: Say, tmp_path: Path) -> None:
    small = ["--weights", "my-model", "--output", str(tmp_path / "x.mp4")]
    status, out, err = say("generate", "a red circle", *small, "--lora", "nowhere.safetensors=0.5")
    assert (status, out) == (3, "")
    assert "there is no LoRA 'nowhere.safetensors'" in err
    assert not list(tmp_path.iterdir())
    status, _, err = say("generate", "a red circle", *small, "--lora", "style.safetensors=11")
    assert status == 2
    assert "loras" in err


@pytest.mark.feature("C058")
def test_inspect_tells_layouts_parameters_and_releases(say: Say) -> None:
    _, out, _ = say("checkpoint", "inspect", "my-model", "--json")
    found = {item["name"]: item for item in json.loads(out)}
    assert {name: item["layout"] for name, item in found.items()} == {
        "text_encoder": "",
        "transformer": "easyanimate",
        "vae": "easyanimate",
    }
    tensors = load_file("my-model/transformer/diffusion_pytorch_model.safetensors")
    assert found["transformer"]["tensors"] == len(tensors)
    assert found["transformer"]["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert found["transformer"]["dtypes"] == {"F32": len(tensors)}
    _, out, _ = say("checkpoint", "inspect", "style.safetensors")
    assert "kohya" in out
    assert "LoRA of 27 layers, rank 2" in out


def test_verify_finds_what_loading_would_find(say: Say, models: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    assert say("checkpoint", "verify", str(folder), "--model", "v5.1-7b")[0] == 0
    status, out, err = say("checkpoint", "verify", str(folder), "--model", "v5.1-7b-inp")
    assert status == 3
    assert "wrong  transformer: this checkpoint has 16 input channels" in out
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["quant_conv.bias"][0] = torch.nan
    save_file(tensors, file)
    status, out, err = say("checkpoint", "verify", str(folder), "--json")
    verdicts = {verdict["name"]: verdict["good"] for verdict in json.loads(out)}
    assert (status, verdicts) == (3, {"text_encoder": True, "transformer": True, "vae": False})
    assert "1 of 3 parts" in err
    (folder / "tokenizer").rename(tmp_path / "away")
    status, out, _ = say("checkpoint", "verify", str(folder))
    assert say("checkpoint", "verify", str(tmp_path / "nowhere"))[0] == 3
    assert (status, "has no tokenizer/" in out) == (3, True)


def test_hash_prints_what_sha256sum_prints(say: Say) -> None:
    file = Path("my-model/vae/diffusion_pytorch_model.safetensors")
    status, out, _ = say("checkpoint", "hash", "my-model/vae")
    assert (status, out) == (0, f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file}\n")
    assert say("checkpoint", "hash", "nowhere")[0] == 3


def test_convert_refuses_what_makes_no_sense(say: Say, tmp_path: Path) -> None:
    target = str(tmp_path / "x.safetensors")
    assert say("checkpoint", "convert", "style.safetensors", target, "--to", "easyanimate")[0] == 2
    assert say("checkpoint", "convert", "my-model/vae/config.json", target, "--to", "diffusers")[0] == 3
    assert say("checkpoint", "convert", "nowhere", target, "--to", "diffusers")[0] == 3
    assert say("checkpoint", "convert", "my-model", "other-model", "--to", "diffusers")[0] == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.feature("C070", "C066")
def test_models_list_says_what_there_is_and_where(say: Say) -> None:
    status, out, _ = say("models", "list", "--json")
    found = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert found["v5.1-7b"]["huggingface"] == "alibaba-pai/EasyAnimateV5.1-7b-zh"
    assert found["v5.1-7b"]["modelscope"] == "PAI/EasyAnimateV5.1-7b-zh"
    assert found["v5.1-7b"]["path"] is None
    status, out, err = say("models", "where", "v5.1-7b")
    assert (status, out) == (3, "")
    assert "easyanimate models pull v5.1-7b" in err
    assert say("models", "where", "v5.1-7c")[0] == 2
    # Tests ask no network: the command says so instead of trying.
    status, _, err = say("models", "pull", "v5.1-7b")
    assert (status, "is not on this machine" in err) == (3, True)
    assert say("models", "pull", "nano")[0] == 2
    status, _, err = say("models", "prune")
    assert (status, "nothing to remove" in err) == (0, True)
