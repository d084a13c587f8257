"""Checkpoints of V1, V2 and V3: strict loading, V1's motion module beside any image model, LoRA names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from easyanimate_core.checkpoints.convert import convert_file
from easyanimate_core.checkpoints.inspection import inspect
from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.lora import (
    LAYOUTS,
    LoraFile,
    LowRank,
    attach_lora,
    linear_names,
    match_lora,
    read_lora,
    write_lora,
)
from easyanimate_core.checkpoints.lora.names import dotted
from easyanimate_core.checkpoints.save import write_json
from easyanimate_core.denoisers.pixart import PixArt
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound, ConfigError, InvalidRequest
from easyanimate_core.events import EventBus, Notice
from easyanimate_core.pipeline import load
from easyanimate_core.pipeline.components import build_denoiser
from easyanimate_core.presets import Preset, find_preset
from easyanimate_core.presets.model import Components
from easyanimate_core.request import Size
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import v1, v2, v3
from easyanimate_core.testing.tiny.vaes import write_vae
from golden import assert_close, load_case

F32 = torch.float32


@pytest.fixture(scope="module")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PixArt checkpoint's `transformer/` folder."""
    return v1.write_transformer(tmp_path_factory.mktemp("pixart") / "transformer")


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return v1.write_motion_module(tmp_path_factory.mktemp("motion") / "easyanimate_v1_mm.safetensors")


def stored(path: Path) -> dict[str, Tensor]:
    return load_file(path / "diffusion_pytorch_model.safetensors" if path.is_dir() else path)


def loaded(*arguments: Any, **options: Any) -> dict[str, Tensor]:
    denoiser = build_denoiser(*arguments, dtype=F32, **options)
    assert isinstance(denoiser, PixArt)
    return denoiser.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- strict loading -------------------------------------------------------------------------------


@pytest.mark.feature("C009", "C011")
@pytest.mark.parametrize("name", ["Transformer3DModel", "pixart"])
def test_v2_and_v3_load_strictly_and_leftovers_of_averaging_do_not_matter(name: str, tmp_path: Path) -> None:
    folders = (
        v2.write_transformer(tmp_path / "v2"),
        v3.write_transformer(tmp_path / "v3"),
        v3.write_transformer(tmp_path / "v3-inp", inlets=True),
    )
    for folder in folders:
        assert same(loaded(name, folder), stored(folder))


@pytest.mark.feature("C010")
def test_a_motion_module_makes_v1_of_an_image_model(pixart: Path, motion: Path) -> None:
    events, heard = EventBus(), list[str]()
    events.subscribe(lambda event: heard.append(event.message) if isinstance(event, Notice) else None)
    whole = loaded("pixart", pixart, motion_path=motion, events=events)
    assert same(whole, {**stored(pixart), **stored(motion)})
    assert heard == [f"the denoiser is from '{motion}' ({len(whole)} tensors, layout 'easyanimate')"]


@pytest.mark.feature("C010")
def test_any_image_model_takes_the_motion_module(pixart: Path, motion: Path, tmp_path: Path) -> None:
    """A personalised one, as a bare file."""
    portrait = tmp_path / "easyanimate_portrait.safetensors"
    save_file({name: tensor + 1 for name, tensor in stored(pixart).items()}, portrait)
    whole = loaded("pixart", pixart, path=portrait, motion_path=motion)
    assert same(whole, {**stored(portrait), **stored(motion)})


@pytest.mark.feature("C010")
def test_half_a_model_is_refused_and_the_hint_says_which_half_is_missing(pixart: Path, motion: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="missing") as error:
        loaded("pixart", pixart)
    assert "motion module" in error.value.hint
    with pytest.raises(CheckpointMismatch, match="missing") as error:
        loaded("pixart", pixart, path=motion)
    assert "belongs beside an image model" in error.value.hint


@pytest.mark.feature("C010")
def test_two_motion_modules_are_one_too_many(pixart: Path, motion: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file({**stored(pixart), **stored(motion)}, whole)
    with pytest.raises(CheckpointMismatch, match=r"attn_temporal.* is stored in 'whole.safetensors' and in"):
        loaded("pixart", pixart, path=whole, motion_path=motion)


def test_inspection_knows_both_halves(pixart: Path, motion: Path) -> None:
    (image,) = inspect(pixart)
    assert (image.layout, "image model (PixArt)" in image.remark) == ("easyanimate", True)
    (moving,) = inspect(motion)
    assert (moving.layout, moving.remark.startswith("This is a motion module")) == ("motion-module", True)


@pytest.mark.feature("C018")
def test_input_channels_that_differ_are_named(tmp_path: Path) -> None:
    folder = v3.write_transformer(tmp_path / "t2v", inlets=False)
    other = v3.write_transformer(tmp_path / "inp") / "config.json"
    (folder / "config.json").write_bytes(other.read_bytes())
    with pytest.raises(CheckpointMismatch, match=r"4 missing: clip_projection.*pos_embed\.proj\.weight"):
        loaded("pixart", folder)


@pytest.mark.feature("C018")
def test_inlets_grow_as_recorded_when_asked(tmp_path: Path) -> None:
    """An image-to-video model starts from a text-to-video one: what reads the picture is new."""
    call, source = load_case("loading_adapt").call("v3_t2v_to_inp"), load_case("transformer_v3_t2v")
    save_file(source.state_dict(), tmp_path / "x.safetensors")
    config = {**source.config, **call.kwargs["override"]}
    with torch.device("meta"), pytest.raises(CheckpointMismatch, match="4 missing: clip_projection"):
        load_into(PixArt(**config), [tmp_path / "x.safetensors"], grow_inlets=True)
    model = PixArt(**config)
    with pytest.raises(CheckpointMismatch, match="4 missing: clip_projection"):
        load_into(model, [tmp_path / "x.safetensors"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_into(model, [tmp_path / "x.safetensors"], grow_inlets=True)
    assert (report.grown, report.loaded + len(report.fresh)) == (("pos_embed.proj.weight",), call.kwargs["total"])
    assert list(report.fresh) == call.kwargs["missing"]
    assert str(report) == "237 tensors, pos_embed.proj.weight adapted, 4 left as new"
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in report.fresh)
    assert_close(call, {name: model.state_dict()[name] for name in call.expected})


def test_there_is_no_other_layout(tmp_path: Path) -> None:
    """Diffusers has no class for these models, and its names for V5.1's would be wrong here."""
    folder = v3.write_transformer(tmp_path / "v3")
    file = folder / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ConfigError, match="diffusers has no class"):
        convert_file(file, tmp_path / "x.safetensors", "diffusers")
    assert same(stored(convert_file(file, tmp_path / "y.safetensors", "easyanimate").path), stored(folder))


# --- the whole of V1 ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image model's folder with everything that a video needs but motion."""
    folder = write_checkpoint(tmp_path_factory.mktemp("whole"))
    v1.write_transformer(folder / "transformer")
    write_vae(folder / "vae", "v1")
    config = {"_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear"}
    write_json(folder / "scheduler" / "scheduler_config.json", config)
    return folder


def preset() -> Preset:
    nano = find_preset("nano")
    components = Components(text_encoders=("qwen2-vl",), denoiser="pixart", vae="kl2d")
    limits = nano.limits.model_copy(update={"size_multiple": 32, "frames_step": 1})
    defaults = nano.defaults.model_copy(
        update={"sampler": "euler", "steps": 2, "frames": 2, "size": Size(height=64, width=32)}
    )
    update = {"components": components, "samplers": ("euler",), "latent_channels": 4}
    return nano.model_copy(update={**update, "limits": limits, "defaults": defaults})


@pytest.mark.feature("C010", "C022")
def test_frames_know_of_each_other_by_the_motion_module(whole: Path, motion: Path, tmp_path: Path) -> None:
    pipe = load(preset(), weights=whole, motion_path=motion, device="cpu")
    video = pipe(prompt="a red circle", seed=1)
    assert video.frames.shape == (1, 3, 2, 64, 32)
    assert video.notes["request"]["motion_path"] == str(motion)
    other = v1.write_motion_module(tmp_path / "other.safetensors", seed=1)
    assert not torch.equal(
        load(preset(), weights=whole, motion_path=other)(prompt="a red circle", seed=1).frames, video.frames
    )
    with pytest.raises(InvalidRequest, match="motion_path is 'other', this pipeline was loaded with"):
        pipe(prompt="a red circle", motion_path="other")


@pytest.mark.feature("C010")
def test_a_video_model_without_its_motion_module_says_how_to_give_it(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch) as error:
        load(preset(), weights=whole).prepare()
    assert "--motion-path FILE" in error.value.hint
    with pytest.raises(CheckpointNotFound, match=r"no file or folder '.*nothing'"):
        load(preset(), weights=whole, motion_path=tmp_path / "nothing")


# --- LoRA -----------------------------------------------------------------------------------------


@pytest.mark.feature("C055")
def test_layers_are_named_as_the_original_names_them() -> None:
    case = load_case("lora_names_v3")
    names = case.calls[0].kwargs["names"]
    paths = list(linear_names(PixArt(**case.config)))
    assert {f"lora_unet__{path.replace('.', '_')}" for path in paths} == set(names["add_lora_in_attn_temporal=True"])
    still = [path for path in paths if "attn_temporal" not in path]
    assert {f"lora_unet__{path.replace('.', '_')}" for path in still} == set(names["add_lora_in_attn_temporal=False"])


@pytest.mark.feature("C055")
@pytest.mark.parametrize(
    "config", [v1.TRANSFORMER_CONFIG, {**load_case("transformer_v3_inp").config}], ids=["V1", "V3"]
)
def test_names_are_told_apart_without_the_model(config: dict[str, Any]) -> None:
    for path in linear_names(PixArt(**config)):
        assert dotted(path.replace(".", "_")) == path


@pytest.mark.feature("C054", "C055")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_of_v3_finds_all_its_layers_in_every_layout(layout: str, tmp_path: Path) -> None:
    model = PixArt(**load_case("transformer_v3_inp").config).eval()
    torch.manual_seed(0)
    layers = {
        ("denoiser", path): LowRank(torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2), 1.0)
        for path in linear_names(model)
        if isinstance(layer := model.get_submodule(path), torch.nn.Linear)
    }
    target = tmp_path / ("adapter" if layout == "peft" else "x.safetensors")
    lora = read_lora(write_lora(LoraFile(tmp_path, "diffusers", layers, {}, 0), target, layout))
    if layout != "kohya":
        # Released names: those of V5.1's text branch in diffusers would be `attn1.add_q_proj`.
        assert ("denoiser", "transformer_blocks.0.attn2.to_q") in lora.layers
    _, report = match_lora(lora, model)
    assert (report.applied, report.total, report.unused) == (len(layers), len(layers), ())
    given = torch.randn(1, 12, 2, 4, 4), torch.tensor([5.0]), torch.randn(1, 3, 24)
    with torch.no_grad():
        before = model(*given)
        attach_lora(model, lora, 0.1, name="one")
        assert not torch.allclose(model(*given), before)
