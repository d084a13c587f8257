"""The original's YAML configs: read, settled against our presets, and told about where they say something in vain.

Their content: the settings of the original's six model configs.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from easyanimate_core.cli.main import run
from easyanimate_core.errors import CheckpointNotFound, InvalidOptions
from easyanimate_core.events import EventBus, Notice
from easyanimate_core.pipeline.pipeline import load
from easyanimate_core.plugins import active
from easyanimate_core.presets import all_presets, find_preset, read_config
from easyanimate_core.presets.original import _LACKS, MotionKwargs, TransformerKwargs, VaeKwargs
from easyanimate_core.slots import DENOISERS, VAES
from easyanimate_core.testing.tiny import write_checkpoint
from recorder import Recorder

_MOTION = {
    "num_attention_heads": 8,
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_position_encoding_max_len": 4096,
    "temporal_attention_dim_div": 1,
}
_V3 = {**_MOTION, "num_attention_heads": 16, "block_size": 1, "remove_time_embedding_in_photo": False}
_FLAT = {"patch_3d": False, "fake_3d": False, "time_position_encoding_before_transformer": False}
_JOINT = {
    "transformer_type": "EasyAnimateTransformer3DModel",
    "after_norm": False,
    "time_position_encoding_type": "3d_rope",
    "resize_inpaint_mask_directly": True,
    "enable_clip_in_inpaint": False,
}
_VAE_FLAGS = ("slice_mag_vae", "slice_compression_vae", "cache_compression_vae", "cache_mag_vae")


def _magvit(flag: str, encoder: int, decoder: int) -> dict[str, Any]:
    sizes = {"vae_type": "AutoencoderKLMagvit", "mini_batch_encoder": encoder, "mini_batch_decoder": decoder}
    return {**sizes, **{name: name == flag for name in _VAE_FLAGS}}


ONE, TWO = {"enable_multi_text_encoder": False}, {"enable_multi_text_encoder": True}
CONFIGS: Mapping[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "v1": (
        {
            "transformer_type": "Transformer3DModel",
            "basic_block_type": "motionmodule",
            "motion_module_type": "VanillaGrid",
            **_FLAT,
            "motion_module_kwargs": {**_MOTION, "block_size": 2},
        },
        {"vae_type": "AutoencoderKL"},
        ONE,
    ),
    "v2": (
        {
            "transformer_type": "Transformer3DModel",
            "basic_block_type": "motionmodule",
            "motion_module_type": "Vanilla",
            "enable_uvit": True,
            **_FLAT,
            "motion_module_kwargs": {**_MOTION, "block_size": 1},
        },
        _magvit("slice_mag_vae", 9, 3),
        ONE,
    ),
    "v3": (
        {
            "transformer_type": "Transformer3DModel",
            "basic_block_type": "global_motionmodule",
            "motion_module_type": "Vanilla",
            "enable_uvit": True,
            **_FLAT,
            "motion_module_kwargs_even": _V3,
            "motion_module_kwargs_odd": {**_V3, "attention_block_types": ["Temporal_Self", "Global_Self"]},
        },
        _magvit("slice_compression_vae", 8, 2),
        ONE,
    ),
    "v4": (
        {
            "transformer_type": "HunyuanTransformer3DModel",
            "basic_block_type": "basic",
            "after_norm": False,
            "time_position_encoding_type": "2d_rope",
            "time_position_encoding": True,
            "resize_inpaint_mask_directly": False,
            "enable_clip_in_inpaint": True,
        },
        _magvit("cache_compression_vae", 8, 2),
        TWO,
    ),
    "v5": ({**_JOINT, "enable_text_attention_mask": False}, _magvit("cache_mag_vae", 4, 1), TWO),
    "v5.1": (
        {**_JOINT, "enable_text_attention_mask": True, "add_ref_latent_in_control_model": True},
        _magvit("cache_mag_vae", 4, 1),
        {**ONE, "replace_t5_to_llm": True},
    ),
}


def written(path: Path, generation: str, **changes: Any) -> Path:
    """One of the original's six configs, with other entries for the denoiser."""
    transformer, vae, text = CONFIGS[generation]
    document = {
        "transformer_additional_kwargs": {**transformer, **changes},
        "vae_kwargs": vae,
        "text_encoder_kwargs": text,
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.feature("C059", "C021")
@pytest.mark.parametrize("generation", CONFIGS)
def test_the_originals_configs_say_what_our_presets_say(tmp_path: Path, generation: str) -> None:
    config = read_config(written(tmp_path / "any_name.yaml", generation))
    assert config.generation == generation
    for preset in (preset for preset in all_presets() if preset.generation == generation and preset.name != "v1-image"):
        applied = config.applied(preset)
        assert applied.components == preset.components
        assert applied.settings.text_encoder == preset.settings.text_encoder
        said = {key: value for key, value in CONFIGS[generation][0].items() if key != "transformer_type"}
        assert applied.settings.denoiser == said
        assert generation == "v5.1" or preset.settings.denoiser == said, "V5.1's own config.json has them"
        vae = {key: value for key, value in CONFIGS[generation][1].items() if key != "vae_type"}
        assert applied.settings.vae == vae


@pytest.mark.feature("C059")
def test_a_changed_config_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.yaml", "v5", enable_text_attention_mask=True, after_norm=True)
    settings = read_config(path).applied(find_preset("v5-7b")).settings
    assert (settings.denoiser["after_norm"], settings.text_encoder["masked"]) == (True, True)


@pytest.mark.feature("C059")
def test_what_a_config_says_in_vain_is_left_out_with_a_warning(tmp_path: Path) -> None:
    heard = Recorder()
    path = written(tmp_path / "typo.yaml", "v2", enable_uvlt=True, motion_module_kwargs={"block_sise": 2, "x": 1})
    config = read_config(path, EventBus(heard))
    assert config.transformer_additional_kwargs.motion_module_kwargs == MotionKwargs()
    assert all(event.level == "warning" for event in heard if isinstance(event, Notice))
    place = f"config '{path}': 'transformer_additional_kwargs"
    assert heard.notices == [
        f"{place}.{setting}' is no setting of such files and is left out.{hint}"
        for setting, hint in (
            ("motion_module_kwargs.block_sise", " Did you mean 'block_size'?"),
            ("motion_module_kwargs.x", ""),
            ("enable_uvlt", " Did you mean 'enable_uvit'?"),
        )
    ]


@pytest.mark.feature("C059")
def test_what_the_class_does_not_have_is_left_out_with_a_warning(tmp_path: Path) -> None:
    heard = Recorder()
    path = written(tmp_path / "v5.yaml", "v5", enable_uvit=True)
    applied = read_config(path, EventBus(heard)).applied(find_preset("v5-7b"))
    assert "enable_uvit" not in applied.settings.denoiser
    (said,) = heard.notices
    assert "'transformer_additional_kwargs.enable_uvit' is no setting of 'EasyAnimateTransformer3DModel'" in said


@pytest.mark.parametrize(
    ("kind", "section"), [*((d, TransformerKwargs) for d in ("pixart", "hunyuan", "mmdit")), ("kl2d", VaeKwargs)]
)
def test_every_other_setting_of_a_config_is_one_of_the_class(kind: str, section: type[Any]) -> None:
    registry: Any = active().registries[VAES if section is VaeKwargs else DENOISERS]
    (name,) = {alias for alias in registry.get(kind).aliases if alias in str(section.model_fields)}
    has = inspect.signature(registry.load(kind)).parameters
    assert section.model_fields.keys() - has.keys() - {"transformer_type", "vae_type"} == _LACKS[name]


@pytest.mark.feature("C059")
def test_a_config_that_makes_no_sense_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidOptions, match="motion_module_type"):
        read_config(written(tmp_path / "kind.yaml", "v2", motion_module_type="Sparse"))
    with pytest.raises(InvalidOptions, match=r"of generation 'v3', the model 'nano' of 'v5\.1'") as caught:
        read_config(written(tmp_path / "v3.yaml", "v3")).applied(find_preset("nano"))
    assert caught.value.hint == "Models of this generation: v3-512, v3-768, v3-960."
    (tmp_path / "list.yaml").write_text("- a\n", encoding="utf-8")
    (tmp_path / "torn.yaml").write_text("a: [", encoding="utf-8")
    (tmp_path / "other.yaml").write_text("model: unet\n", encoding="utf-8")
    for name in ("list", "torn", "other"):
        with pytest.raises(InvalidOptions, match=f"{name}.yaml"):
            read_config(tmp_path / f"{name}.yaml")
    with pytest.raises(CheckpointNotFound, match="there is no config"):
        read_config(tmp_path / "none.yaml")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.mark.feature("C059")
def test_a_config_is_given_when_a_model_is_loaded(tiny: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "v5.1.yaml", "v5.1", resize_inpaint_mask_directly=False)
    heard = Recorder()
    pipe = load("v5.1-7b", weights=tiny, config=path, device="cpu", events=EventBus(heard))
    assert not list(heard)
    assert pipe.assembly.config == path
    denoiser: Any = pipe.prepare().denoiser
    assert denoiser.config.resize_inpaint_mask_directly is False


@pytest.mark.feature("C059", "C060")
def test_a_config_is_checked_before_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["generate", "a lake", "--dry-run", "--model", "v3-512", "--config"]
    assert run([*said, str(written(tmp_path / "v3.yaml", "v3"))]) == 0
    assert json.loads(capsys.readouterr().out)["config"].endswith("v3.yaml")
    assert run([*said, str(written(tmp_path / "typo.yaml", "v3", enable_uvlt=True))]) == 0
    assert "warning: config" in (err := capsys.readouterr().err)
    assert "Did you mean 'enable_uvit'?" in err
    assert run([*said, str(written(tmp_path / "v2.yaml", "v2"))]) == 2
    assert "of generation 'v2'" in capsys.readouterr().err
