"""Every released model has a preset with its published facts, at its published size; a folder is known for what it is.

Sizes, links and lengths: the original's model zoo. Parameter counts: the published numbers of the releases; for V1, V2
and V4 those of the original's code at the released settings.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from easyanimate_core.cli.main import run
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound
from easyanimate_core.interfaces import DeclaresInlets
from easyanimate_core.pipeline.belonging import check_belongs, check_complete, check_motion, parts_of
from easyanimate_core.pipeline.components import skeleton
from easyanimate_core.plugins import Host, using
from easyanimate_core.presets import Preset, all_presets, find_preset
from easyanimate_core.slots import DENOISERS, IMAGE_ENCODERS
from easyanimate_core.testing.tiny import v1 as tiny_v1
from workspace import ROOT

# Released name: preset, GB on disk, task.
FOLDERS: Mapping[str, tuple[str, float, str]] = {
    **{
        f"EasyAnimateV5.1-{size}-zh{suffix}": (f"v5.1-{size}{short}", disk, task)
        for size, disk in (("7b", 30), ("12b", 39))
        for suffix, short, task in (
            ("", "", "text-to-video"),
            ("-InP", "-inp", "image-to-video"),
            ("-Control", "-control", "control"),
            ("-Control-Camera", "-camera", "camera"),
        )
    },
    "EasyAnimateV5-7b-zh": ("v5-7b", 22, "text-to-video"),
    "EasyAnimateV5-7b-zh-InP": ("v5-7b-inp", 22, "image-to-video"),
    "EasyAnimateV5-12b-zh": ("v5-12b", 34, "text-to-video"),
    "EasyAnimateV5-12b-zh-InP": ("v5-12b-inp", 34, "image-to-video"),
    "EasyAnimateV5-12b-zh-Control": ("v5-12b-control", 34, "control"),
    "EasyAnimateV4-XL-2-InP": ("v4-inp", 14.0, "image-to-video"),
    "EasyAnimateV3-XL-2-InP-512x512": ("v3-512", 18.2, "image-to-video"),
    "EasyAnimateV3-XL-2-InP-768x768": ("v3-768", 18.2, "image-to-video"),
    "EasyAnimateV3-XL-2-InP-960x960": ("v3-960", 18.2, "image-to-video"),
    "EasyAnimateV2-XL-2-512x512": ("v2-512", 16.2, "text-to-video"),
    "EasyAnimateV2-XL-2-768x768": ("v2-768", 16.2, "text-to-video"),
    "PixArt-XL-2-512x512": ("v1", 11.4, "text-to-video"),
}
# File that is released beside a model: preset, kind, GB.
FILES: Mapping[str, tuple[str, str, float | None]] = {
    "easyanimate_v1_mm.safetensors": ("v1", "motion-module", 4.1),
    "easyanimate_portrait.safetensors": ("v1", "denoiser", 2.3),
    "easyanimate_portrait_lora.safetensors": ("v1", "lora", 0.654),
    "easyanimatev2_minimalism_lora.safetensors": ("v2-512", "lora", 0.4851),
    "EasyAnimateV5-7b-zh-InP-HPS2.1.safetensors": ("v5-7b-inp", "lora", None),
    "EasyAnimateV5-12b-zh-InP-MPS.safetensors": ("v5-12b-inp", "lora", None),
}
# Frames at most, and frames per second; samplers.
LENGTHS = {"v1": (80, 12), "v2": (144, 24), "v3": (144, 24), "v4": (144, 24), "v5": (49, 8), "v5.1": (49, 8)}
FOUR = ("euler", "euler-a", "dpm++", "pndm")
SAMPLERS = {"v1": FOUR, "v2": FOUR, "v3": FOUR, "v4": (*FOUR, "ddim"), "v5": (*FOUR, "ddim"), "v5.1": ("flow",)}
RELEASED = [preset for preset, _, _ in FOLDERS.values()]


@pytest.fixture(autouse=True)
def host() -> Iterator[Host]:
    with using(Host(discover=False)) as host:
        yield host


# --- the zoo --------------------------------------------------------------------------------------


@pytest.mark.feature("C070", "C057")
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_released_model_has_a_preset_that_is_found_by_its_folder(folder: str) -> None:
    name, disk, task = FOLDERS[folder]
    preset = find_preset(folder)
    assert (preset.name, preset.disk_gb, preset.task) == (name, disk, task)
    assert find_preset(folder.lower()) == find_preset(name) == preset
    if name == "v1":
        assert preset.url is not None
        assert preset.url.endswith(f"/{folder}.tar")
        return
    assert (preset.huggingface, preset.modelscope) == (f"alibaba-pai/{folder}", f"PAI/{folder}")
    ported = f"{folder}-diffusers"
    assert preset.diffusers == (f"alibaba-pai/{ported}" if preset.generation == "v5.1" else None)
    if preset.diffusers is not None:
        assert find_preset(ported) == preset


@pytest.mark.feature("C070")
@pytest.mark.parametrize("file", FILES)
def test_every_released_file_is_told_with_its_model(file: str) -> None:
    name, kind, disk = FILES[file]
    (extra,) = (extra for extra in find_preset(name).extras if extra.name == file)
    assert (extra.kind, extra.disk_gb) == (kind, disk)
    assert (extra.huggingface or extra.url or "").endswith(file)


@pytest.mark.feature("C070")
def test_the_zoo_page_has_every_release_with_its_size_and_links() -> None:
    text = (ROOT / "docs" / "reference" / "model-zoo.md").read_text(encoding="utf-8")
    for preset in all_presets():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{preset.name}` |")), "")
        assert f"| {preset.disk_gb:g} GB |" in row or preset.bundled, preset.name
        assert all(f"({place})" in row for place in _links(preset)), preset.name
    assert all(file in text for file in FILES)
    assert all(folder in text for folder in FOLDERS)


@pytest.mark.feature("C057")
@pytest.mark.parametrize("generation", LENGTHS)
def test_a_generation_has_a_page_with_its_models_and_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], generation: str
) -> None:
    models = ROOT / "docs" / "reference" / "models"
    text = (models / f"{generation}.md").read_text(encoding="utf-8")
    assert f"(../../images/generation-{generation}.svg)" in text
    assert f"]({generation}.md)" in (models / "index.md").read_text(encoding="utf-8")
    names = {preset.name for preset in all_presets() if preset.generation == generation}
    assert set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)) >= names
    (command,) = re.findall(r"^\$ easyanimate (.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48)).save("cat.png")
    assert run([*shlex.split(command), "--dry-run"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["model"] in names


def test_the_pictures_are_those_that_the_tool_draws(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "generation_pictures.py", tmp_path], check=True)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert set(drawn) == {f"generation-{generation}.svg" for generation in LENGTHS}
    assert drawn == {name: (ROOT / "docs" / "images" / name).read_text(encoding="utf-8") for name in drawn}


def _links(preset: Preset) -> list[str]:
    hubs = [("https://huggingface.co/", preset.huggingface), ("https://modelscope.cn/models/", preset.modelscope)]
    return [f"{hub}{repo}" for hub, repo in hubs if repo]


@pytest.mark.feature("C057")
@pytest.mark.parametrize("name", [*RELEASED, "v1-image"])
def test_a_generation_has_its_length_rate_and_samplers(host: Host, name: str) -> None:
    preset = find_preset(name)
    frames, fps = LENGTHS[preset.generation]
    assert (preset.limits.frames_max, preset.defaults.fps) == (1 if name == "v1-image" else frames, fps)
    assert preset.samplers == SAMPLERS[preset.generation]
    assert preset.text_length == (256 if preset.generation == "v5.1" else None)
    assert (preset.components.image_encoder is not None) == any(i.name == "image_tokens" for i in preset.inlets)
    assert preset.components.image_encoder is None or preset.components.image_encoder in host.registries[IMAGE_ENCODERS]
    v1 = preset.generation == "v1"
    assert (preset.limits.size_min, preset.limits.size_max) == ((384, 704) if v1 else (128, 1344))


@pytest.mark.feature("C050")
@pytest.mark.parametrize("name", RELEASED)
def test_float16_computes_in_float32_where_it_would_overflow(name: str) -> None:
    preset = find_preset(name)
    half = {part: preset.settings_of(part, half=True) for part in ("denoiser", "vae")}
    assert half["denoiser"].get("upcast_attention", False) == (preset.generation in ("v1", "v2", "v3"))
    assert half["vae"].get("upcast_vae", False) == (preset.generation in ("v2", "v3", "v4", "v5"))
    assert not any("upcast" in key for part in ("denoiser", "vae") for key in preset.settings_of(part, half=False))


@pytest.mark.feature("C057")
def test_the_list_shows_one_generation(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["presets", "list", "--generation", "v3", "--json"]) == 0
    assert [preset["name"] for preset in json.loads(capsys.readouterr().out)] == ["v3-512", "v3-768", "v3-960"]
    assert run(["presets", "list", "--generation", "v9"]) == 2
    assert "v5.1" in capsys.readouterr().err
    assert run(["presets", "show", "v1"]) == 0
    assert "easyanimate_v1_mm.safetensors (4.1 GB)" in capsys.readouterr().out


# --- real sizes -----------------------------------------------------------------------------------

MMDIT = {"num_attention_heads": 48, "attention_head_dim": 64, "out_channels": 16, "time_embed_dim": 512}
SEVEN, TWELVE = {"num_layers": 36, "mmdit_layers": 18}, {"num_layers": 48, "mmdit_layers": 48}
V5 = {**MMDIT, "text_embed_dim": 1024, "text_embed_dim_t5": 2048}
V5_1 = {**MMDIT, "text_embed_dim": 3584, "text_embed_dim_t5": None, "add_norm_text_encoder": True}
# What a PixArt folder's own config says: motion is not in it.
PIXART = {"num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28, "out_channels": 8, "sample_size": 64}
HUNYUAN = {"num_attention_heads": 16, "attention_head_dim": 88, "num_layers": 40, "out_channels": 8}


@pytest.mark.feature("C009", "C011", "C012", "C013")
@pytest.mark.parametrize(
    ("name", "config", "parameters", "entries"),
    [
        ("v1-image", PIXART, 1_429_029_536 - 818_173_440, 603),
        ("v1", PIXART, 1_429_029_536, 1387),
        ("v2-512", PIXART, 1_446_296_864, 1413),
        ("v3-960", PIXART, 1_538_364_704, 1417),
        ("v4-inp", HUNYUAN, 1_954_844_704, 2397),
        ("v5-7b-inp", {**V5, **SEVEN}, 6_813_097_536, 1170),
        ("v5-12b-inp", {**V5, **TWELVE}, 11_797_692_480, 1938),
        ("v5.1-7b", {**V5_1, **SEVEN}, 6_814_462_016, 1169),
        ("v5.1-7b-inp", {**V5_1, **SEVEN}, 6_814_670_912, 1169),
        ("v5.1-7b-control", {**V5_1, **SEVEN}, 6_814_855_232, 1169),
        ("v5.1-7b-camera", {**V5_1, **SEVEN}, 6_814_732_352, 1169),
        ("v5.1-12b-inp", {**V5_1, **TWELVE}, 11_799_265_856, 1937),
    ],
)
def test_a_preset_and_the_released_config_make_the_released_model(
    name: str, config: dict[str, Any], parameters: int, entries: int
) -> None:
    preset = find_preset(name)
    whole = {**config, "in_channels": preset.in_channels, **preset.settings_of("denoiser", half=False)}
    model: Any = skeleton(DENOISERS, preset.components.denoiser, whole, Path("config.json"))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries
    assert isinstance(model, DeclaresInlets)
    model.declare(preset.inlets)
    assert all(inlet.width for inlet in model.inlets)


# --- folders --------------------------------------------------------------------------------------


def folder_with(folder: Path, **config: Any) -> Path:
    """A checkpoint of which only the denoiser's config is there."""
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.feature("C058", "C038")
@pytest.mark.parametrize(
    ("name", "config", "said", "hint"),
    [
        ("v3-768", {**PIXART, "caption_channels": 4096, "in_channels": 4}, "4 input channels", "'v2-512'"),
        ("v2-512", {**PIXART, "caption_channels": 4096, "in_channels": 12}, "12 input channels", "'v3-960'"),
        ("v3-512", {**HUNYUAN, "cross_attention_dim_t5": 2048, "in_channels": 12}, "'hunyuan'", "'v4-inp'"),
        ("v4-inp", {**V5, **SEVEN, "in_channels": 33}, "'mmdit'", "choose the model 'v5-7b-inp'"),
        ("v5-12b", {**V5, **TWELVE, "in_channels": 32}, "32 input channels", "choose the model 'v5-12b-control'"),
        ("v5.1-7b-inp", {**V5, **SEVEN, "in_channels": 33}, "2 text encoder", "choose the model 'v5-7b-inp'"),
        ("v5.1-7b-inp", {**V5_1, **SEVEN, "in_channels": 38}, "38 input", "choose the model 'v5.1-7b-camera'"),
        ("v5.1-7b", {**V5_1, "num_layers": 2, "in_channels": 48}, "48 input", "channels: 'v5.1-7b-control' or"),
    ],
)
def test_a_folder_of_another_model_is_refused_and_named(
    tmp_path: Path, name: str, config: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(CheckpointMismatch, match=said) as caught:
        check_belongs(find_preset(name), folder_with(tmp_path, **config))
    assert hint in caught.value.hint


@pytest.mark.feature("C038")
@pytest.mark.parametrize("name", RELEASED)
def test_a_folder_of_the_model_is_accepted(tmp_path: Path, name: str) -> None:
    preset = find_preset(name)
    families = {"pixart": {**PIXART, "caption_channels": 4096}, "hunyuan": {**HUNYUAN, "cross_attention_dim_t5": 2048}}
    joint = V5 if preset.generation == "v5" else V5_1
    config = families.get(preset.components.denoiser, joint)
    check_belongs(preset, folder_with(tmp_path, **config, in_channels=preset.in_channels))


TEXT = ("text_encoder", "tokenizer")


@pytest.mark.feature("C058")
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("v1", TEXT),
        ("v2-512", TEXT),
        ("v3-512", (*TEXT, "image_encoder")),
        ("v4-inp", (*TEXT, "text_encoder_2", "tokenizer_2", "image_encoder")),
        ("v5-12b-inp", (*TEXT, "text_encoder_2", "tokenizer_2")),
        ("v5.1-12b-inp", TEXT),
    ],
)
def test_a_folder_is_complete_or_told_what_it_lacks(tmp_path: Path, name: str, more: tuple[str, ...]) -> None:
    preset = find_preset(name)
    parts = ("transformer", "vae", "scheduler", *more)
    assert parts_of(preset) == parts
    with pytest.raises(CheckpointNotFound) as caught:
        check_complete(preset, tmp_path)
    assert all(f"{part}/" in caught.value.message for part in parts)
    for part in parts:
        (tmp_path / part).mkdir()
    with pytest.raises(CheckpointNotFound, match=r"has no transformer/config\.json, vae/config\.json, scheduler/sched"):
        check_complete(preset, tmp_path)
    for part in parts:
        (tmp_path / part / ("scheduler_config.json" if part == "scheduler" else "config.json")).write_text("{}")
    check_complete(preset, tmp_path)


@pytest.mark.feature("C058", "C020")
def test_v1_is_told_that_its_motion_module_is_another_file(tmp_path: Path) -> None:
    tiny_v1.write_transformer(tmp_path / "transformer")
    with pytest.raises(CheckpointNotFound, match=r"needs its motion module 'easyanimate_v1_mm\.safetensors'") as caught:
        check_motion(find_preset("v1"), tmp_path)
    assert "--motion-path" in caught.value.hint
    assert "v1-image" in caught.value.hint
    check_motion(find_preset("v1-image"), tmp_path)
    check_motion(find_preset("v2-512"), tmp_path)


def test_meta_models_hold_no_memory() -> None:
    """A guard of the table above: the counts are of models without storage."""
    model: Any = skeleton(DENOISERS, "pixart", {**PIXART, "num_layers": 1, "in_channels": 4}, Path("config.json"))
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}
