"""From a preset and a folder to components, by name and strictly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from easyanimate_core.checkpoints.save import write_json
from easyanimate_core.checkpoints.source import read_json
from easyanimate_core.data import Inlet, TextEmbedding
from easyanimate_core.errors import (
    CheckpointMismatch,
    CheckpointNotFound,
    IncompatibleConditions,
    InvalidOptions,
    InvalidRequest,
    UnknownComponent,
    UnsafeCheckpoint,
)
from easyanimate_core.pipeline import Pipeline, load
from easyanimate_core.plugins import Host, hookimpl, using
from easyanimate_core.presets import Preset, find_preset
from easyanimate_core.registry import Registrar
from easyanimate_core.testing import write_checkpoint
from recorder import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return load("nano", weights=folder)


class Dummy(nn.Module):
    """A text encoder of a plugin: one state per word."""

    def __init__(self, config: dict[str, Any], tokenizer: Path, *, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.scale = nn.Parameter(torch.ones(32))

    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        rows = [torch.linspace(0, len(prompt), self.max_length)[:, None] * self.scale for prompt in prompts]
        return TextEmbedding(torch.stack(rows), torch.ones(len(prompts), self.max_length, dtype=torch.long))


class DummyPlugin:
    @hookimpl
    def easyanimate_register(self, registrar: Registrar) -> None:
        registrar.add("text_encoders", "dummy", f"{__name__}:Dummy", summary="one state per word")


def variant(**components: Any) -> Preset:
    nano = find_preset("nano")
    return nano.model_copy(update={"components": nano.components.model_copy(update=components)})


@pytest.mark.feature("C001")
def test_a_text_encoder_is_found_by_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    save_file({"scale": torch.full((32,), 0.1)}, folder / "text_encoder" / "model.safetensors")
    with using(Host(discover=False, plugins={"easyanimate-dummy": DummyPlugin()})):
        pipe = load(variant(text_encoders=("dummy",)), weights=folder)
        assert isinstance(pipe.prepare().text_encoders[0], Dummy)
        assert pipe(**SMALL).frames.isfinite().all()


@pytest.mark.feature("C001", "C008", "C021")
@pytest.mark.parametrize("part", [{"text_encoders": ("dumy",)}, {"denoiser": "mmdti"}, {"vae": "magivt"}])
def test_unknown_components_are_named(folder: Path, part: dict[str, Any]) -> None:
    with pytest.raises(UnknownComponent) as caught:
        load(variant(**part), weights=folder).prepare()
    assert caught.value.hint


def test_unknown_names_are_refused_at_once(folder: Path) -> None:
    for wrong in ({"model": "nanoo"}, {"offload": "residnet"}, {"storage": "float9"}):
        with pytest.raises(UnknownComponent):
            load(**{"weights": folder, **wrong})
    for wrong in ({"device": "gpu"}, {"device": "cuda:77"}, {"dtype": "float128"}):
        with pytest.raises(InvalidRequest):
            load("nano", weights=folder, **wrong)


@pytest.mark.feature("C058")
def test_a_model_without_weights_says_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"needs its weights \(\d+ GB\)") as caught:
        load("v5.1-7b")
    assert "EasyAnimateV5.1-7b-zh" in caught.value.hint
    with pytest.raises(CheckpointNotFound, match="no transformer/, vae/, scheduler/, text_encoder/, tokenizer/"):
        load("v5.1-7b", weights=tmp_path)


def changed(folder: Path, file: str, **changes: Any) -> Path:
    """The checkpoint with other entries in one of its JSON files."""
    write_json(folder / file, {**read_json(folder / file), **changes})
    return folder


def test_inlets_must_fit_the_checkpoint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, in_channels=38)
    with pytest.raises(CheckpointMismatch, match="38 input channels"):
        load("nano", weights=folder).prepare()
    inlets = (Inlet("camera", "channels", 6), Inlet("reference", "channels", 16))
    camera = load(find_preset("nano").model_copy(update={"inlets": inlets}), weights=folder)
    assert camera(**SMALL).frames.isfinite().all(), "empty inlets are zeros"


class CameraPlugin:
    @hookimpl
    def easyanimate_register(self, registrar: Registrar) -> None:
        registrar.add("conditioners", "camera", "nowhere:Camera", tags=["inlet:camera"])


def test_a_condition_without_inlet_is_refused_before_weights_are_read(folder: Path) -> None:
    said = r"no inlet 'camera' for 'camera' \(it has: text\)"
    host = Host(discover=False, plugins={"easyanimate-camera": CameraPlugin()})
    with using(host), pytest.raises(IncompatibleConditions, match=said):
        load("nano", weights=folder)(**SMALL, conditions=["camera"])


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("transformer/config.json", {"num_layer": 3}, "'num_layer' to '3'"),
        ("transformer/config.json", {"num_layers": 3}, "missing: transformer_blocks.2"),
        ("transformer/config.json", {"num_layers": "many"}, "does not describe a 'mmdit'"),
        ("vae/config.json", {"latent_channels": 4}, "another shape"),
        ("vae/config.json", {"cache_mag": True}, "'cache_mag'"),
        ("scheduler/scheduler_config.json", {"shfit": 1}, "shfit"),
        ("scheduler/scheduler_config.json", {"shift": -1}, "shift"),
        ("text_encoder/config.json", {"num_hidden_layers": 4}, "missing: model.layers.2"),
        ("text_encoder/config.json", {"model_type": "t5"}, "'t5'"),
    ],
)
def test_configs_that_do_not_fit_are_refused(tmp_path: Path, file: str, changes: dict[str, Any], said: str) -> None:
    folder = changed(write_checkpoint(tmp_path), file, **changes)
    with pytest.raises(CheckpointMismatch) as caught:
        load("nano", weights=folder).prepare()
    assert said in caught.value.message


def test_settings_that_no_code_ever_read_are_ignored(tmp_path: Path) -> None:
    folder = changed(
        write_checkpoint(tmp_path), "vae/config.json", sample_size=256, norm_type="group", force_upcast=True
    )
    assert load("nano", weights=folder).prepare().vae.compression.channels == 16


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_damaged_weights_are_refused(tmp_path: Path, part: str) -> None:
    folder = write_checkpoint(tmp_path)
    file = next((folder / part).glob("*.safetensors"))
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim > 1)
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, file)
    with pytest.raises(CheckpointMismatch, match="NaN"):
        load("nano", weights=folder).prepare()
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UnsafeCheckpoint):
        load("nano", weights=folder).prepare()
    file.unlink()
    with pytest.raises(CheckpointNotFound, match="no weights"):
        load("nano", weights=folder).prepare()


def test_weights_in_any_dtype_give_nearly_the_same_video(tmp_path: Path) -> None:
    exact = load("nano", weights=write_checkpoint(tmp_path / "a"))(**SMALL)
    half = load("nano", weights=write_checkpoint(tmp_path / "b", dtype=torch.float16))(**SMALL)
    assert (exact.frames - half.frames).abs().max() < 0.02


def test_options_of_the_request_are_checked(pipe: Pipeline) -> None:
    with pytest.raises((InvalidOptions, InvalidRequest)):
        pipe(**SMALL, sampler={"name": "flow", "shift": -3})


@pytest.mark.gpu
def test_a_gpu_makes_nearly_the_same_video(folder: Path, pipe: Pipeline) -> None:
    on_gpu = load("nano", weights=folder, device="cuda", dtype="float32")(**SMALL)
    assert (on_gpu.frames - pipe(**SMALL).frames).abs().max() < 0.02
