"""VAEs of every generation from files as released: found by name, filled strictly, the same as when written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from easyanimate_core.checkpoints.save import save_component
from easyanimate_core.errors import CheckpointMismatch
from easyanimate_core.interfaces import VideoVAE
from easyanimate_core.pipeline.components import build_vae
from easyanimate_core.plugins import active
from easyanimate_core.slots import VAES
from easyanimate_core.testing.tiny.vaes import COGVIDEOX_CONFIG, VAE_CONFIGS, write_vae
from easyanimate_core.vae.cogvideox import CogVideoX

WEIGHTS = "diffusion_pytorch_model.safetensors"
LENGTHS = {"v1": 3, "v2": 9, "v3": 8, "v4": 8, "v5": 5, "v5.1": 5}


def component(generation: str) -> str:
    return "kl2d" if generation == "v1" else "magvit"


def built(name: str, folder: Path) -> Any:
    vae = build_vae(name, folder, dtype=torch.float32)
    assert isinstance(vae, VideoVAE)
    return vae


@pytest.mark.feature("C021")
@pytest.mark.parametrize(
    ("name", "alias"),
    [("kl2d", "AutoencoderKL"), ("magvit", "AutoencoderKLMagvit"), ("cogvideox", "AutoencoderKLCogVideoX")],
)
def test_vaes_are_found_by_the_name_of_their_class(name: str, alias: str) -> None:
    assert active().registries[VAES].get(alias).name == name


@pytest.mark.feature("C022", "C023", "C024")
@pytest.mark.parametrize("generation", VAE_CONFIGS)
def test_a_released_folder_loads_strictly_and_works(generation: str, tmp_path: Path) -> None:
    vae = built(component(generation), write_vae(tmp_path, generation))
    stored = load_file(tmp_path / WEIGHTS)
    assert vae.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in vae.state_dict().items())
    frames = LENGTHS[generation]
    with torch.no_grad():
        latents = vae.encode_video(torch.rand(1, 3, frames, 16, 16) * 2 - 1)
        assert vae.decode_video(latents).shape == (1, 3, frames, 16, 16)


@pytest.mark.feature("C022", "C024")
@pytest.mark.parametrize("generation", ["v1", "v3"])
def test_a_missing_tensor_is_named(generation: str, tmp_path: Path) -> None:
    write_vae(tmp_path, generation)
    stored = load_file(tmp_path / WEIGHTS)
    del stored["decoder.conv_out.bias"]
    save_file(stored, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointMismatch, match=r"decoder\.conv_out\.bias"):
        built(component(generation), tmp_path)


@pytest.mark.feature("C022")
def test_a_picture_vae_of_the_time_of_the_first_release_loads(tmp_path: Path) -> None:
    """Its attention has other names, and its config says less and more than today's."""
    write_vae(tmp_path, "v1")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    stored = load_file(tmp_path / WEIGHTS)
    old = {}
    for name, value in stored.items():
        for today, then in names.items():
            name = name.replace(f".{today}.", f".{then}.")
        old[name] = value
    assert old.keys() != stored.keys()
    save_file(old, tmp_path / WEIGHTS)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "sample_size": 256, "_diffusers_version": "0.4.2"}))
    loaded = built("kl2d", tmp_path).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in stored.items())


@pytest.mark.feature("C024")
def test_a_repackaged_config_may_call_the_class_otherwise(tmp_path: Path) -> None:
    """The copy of V3's VAE on Hugging Face says `AutoencoderKL`; the preset decides, not the name."""
    write_vae(tmp_path, "v3")
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderKL", "use_tiling": True}))
    assert built("magvit", tmp_path).tile_decoder


@pytest.mark.feature("C028")
def test_cogvideox_loads_with_the_switches_of_an_easyanimate_config(tmp_path: Path) -> None:
    config = {**COGVIDEOX_CONFIG, "cache_mag_vae": True, "mini_batch_encoder": 4, "force_upcast": True}
    weights = CogVideoX(**COGVIDEOX_CONFIG).state_dict()
    save_component(tmp_path, {"_class_name": "AutoencoderKLCogVideoX", **config}, weights)
    loaded = built("cogvideox", tmp_path).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in weights.items())
