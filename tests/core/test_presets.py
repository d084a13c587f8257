"""Presets are data, and agree with the published facts of the models that they describe."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from distributions import temporary_site
from easyanimate_core.errors import CheckpointNotFound, InvalidOptions, InvalidRequest, UnknownComponent
from easyanimate_core.plugins import Host, hookimpl, using
from easyanimate_core.presets import Preset, all_presets, find_preset
from easyanimate_core.registry import Registrar
from easyanimate_core.request import GenerationRequest, Size
from easyanimate_core.slots import DENOISERS, PRESETS, SAMPLERS, TEXT_ENCODERS, VAES

EARLIER = ["v1", "v1-image", "v2-512", "v2-768", "v3-512", "v3-768", "v3-960", "v4-inp"]
EARLIER += ["v5-7b", "v5-7b-inp", "v5-12b", "v5-12b-inp", "v5-12b-control"]
V51 = [f"v5.1-{size}{task}" for size in ("7b", "12b") for task in ("", "-inp", "-control", "-camera")]


@pytest.fixture(autouse=True)
def host() -> Iterator[Host]:
    with using(Host(discover=False)) as host:
        yield host


def asked(**said: object) -> GenerationRequest:
    return GenerationRequest.model_validate({"prompt": "a red circle", **said})


def test_every_file_is_registered_and_every_preset_reads(host: Host):
    written = {path.name.removesuffix(".toml") for path in files("easyanimate_core.presets").joinpath("data").iterdir()}
    assert written == set(host.registries[PRESETS].names)
    assert {"nano", *EARLIER, *V51} <= {preset.name for preset in all_presets()}


@pytest.mark.feature("C057")
@pytest.mark.parametrize("name", ["nano", *EARLIER, *V51])
def test_components_and_samplers_of_a_preset_are_registered(host: Host, name: str):
    preset = find_preset(name)
    for encoder in preset.components.text_encoders:
        assert encoder in host.registries[TEXT_ENCODERS]
    assert preset.components.denoiser in host.registries[DENOISERS]
    assert preset.components.vae in host.registries[VAES]
    assert preset.defaults.sampler in preset.samplers
    assert all(sampler in host.registries[SAMPLERS] for sampler in preset.samplers)


@pytest.mark.parametrize("name", ["nano", *EARLIER, *V51])
def test_the_defaults_of_a_preset_are_within_its_limits(name: str):
    preset = find_preset(name)
    assert preset.limits.fit(preset.defaults.size) == preset.defaults.size
    assert preset.limits.fit_frames(preset.defaults.frames) == preset.defaults.frames


@pytest.mark.feature("C057")
@pytest.mark.parametrize("name", V51)
def test_v5_1_makes_49_frames_at_8_fps_with_flow(name: str):
    preset = find_preset(name)
    assert (preset.generation, preset.samplers, preset.text_length) == ("v5.1", ("flow",), 256)
    assert (preset.defaults.frames, preset.defaults.fps, preset.defaults.steps) == (49, 8, 50)
    assert (preset.limits.frames_max, preset.limits.frames_step) == (49, 4)
    assert (preset.limits.size_min, preset.limits.size_max, preset.limits.size_multiple) == (128, 1344, 16)
    assert preset.disk_gb == (30 if "7b" in name else 39)


@pytest.mark.parametrize(
    ("suffix", "channels", "inlets", "released"),
    [
        ("", 16, [], "zh"),
        ("-inp", 33, ["mask", "masked_video"], "zh-InP"),
        ("-control", 48, ["control", "reference"], "zh-Control"),
        ("-camera", 38, ["camera", "reference"], "zh-Control-Camera"),
    ],
)
@pytest.mark.parametrize("size", ["7b", "12b"])
def test_inlets_add_up_to_the_released_channels(
    size: str, suffix: str, channels: int, inlets: list[str], released: str
):
    preset = find_preset(f"v5.1-{size}{suffix}")
    assert preset.in_channels == channels
    assert [inlet.name for inlet in preset.inlets] == inlets
    assert preset.huggingface == f"alibaba-pai/EasyAnimateV5.1-{size}-{released}"
    assert preset.modelscope == f"PAI/EasyAnimateV5.1-{size}-{released}"
    assert find_preset(f"EasyAnimateV5.1-{size}-{released}") == preset, "the released folder's name is an alias"


def test_teacache_was_fitted_for_each_size_of_v5_1():
    seven, twelve = find_preset("v5.1-7b").teacache, find_preset("v5.1-12b").teacache
    assert seven == (1.07862322, -4.19362456, 3.06725828, 0.33161686, 0.02374758)
    assert twelve == (-10.47857366, 8.33844143, -0.78477557, 0.68798618, 0.0136149)
    assert find_preset("nano").teacache is None


@pytest.mark.feature("C056")
@pytest.mark.parametrize("name", V51)
def test_negative_prompts_are_there_in_chinese_and_english(name: str):
    preset = find_preset(name)
    assert preset.negative_prompts["en"].startswith("Twisted body, limb deformities")
    assert preset.negative_prompts["zh"].startswith("扭曲的身体，肢体残缺")
    assert preset.defaults.negative_prompt == preset.negative_prompts["en"]


@pytest.mark.feature("C056")
def test_every_preset_brings_prompts_that_make_valid_requests():
    for preset in all_presets():
        assert preset.examples, preset.name
        assert all(preset.complete(asked(prompt=prompt)).prompts == (prompt,) for prompt in preset.examples)


@pytest.mark.feature("C056", "C057")
def test_completing_fills_what_was_left_open_and_keeps_what_was_said():
    preset = find_preset("v5.1-7b")
    done = preset.complete(asked(steps=30, negative_prompt="", size="390x680"))
    assert (done.steps, done.negative_prompt, done.frames, done.fps, done.guidance) == (30, "", 49, 8, 6.0)
    assert done.size == Size(height=390, width=680)
    assert preset.limits.fit(done.size) == Size(height=384, width=672)
    assert done.seed is not None
    assert done.sampler is not None
    assert (done.sampler.name, done.sampler.given) == ("flow", {})
    assert preset.complete(asked()).negative_prompt == preset.defaults.negative_prompt


@pytest.mark.feature("C041")
def test_frames_are_rounded_down_to_the_grid():
    limits = find_preset("v5.1-7b").limits
    assert [limits.fit_frames(n) for n in (1, 2, 4, 5, 6, 48, 49, 50)] == [1, 1, 1, 5, 5, 45, 49, 49]


@pytest.mark.feature("C039")
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"frames": 60}, "'60' frames are asked for, but this model makes at most 49"),
        ({"size": "64x672"}, "the size is '64x672', but this model makes 128 to 1344 pixels a side"),
        ({"size": "384x2000"}, "the size is '384x2000', but"),
    ],
)
def test_what_this_model_cannot_do_is_refused(said: dict[str, object], message: str):
    with pytest.raises(InvalidRequest) as caught:
        find_preset("v5.1-7b").complete(asked(**said))
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@pytest.mark.feature("C029")
def test_a_sampler_that_a_model_was_not_trained_for_is_refused():
    class Plugin:
        @hookimpl
        def easyanimate_register(self, registrar: Registrar) -> None:
            registrar.add(SAMPLERS, "euler", "no.where:Euler")

    with using(Host(discover=False, plugins={"easyanimate-euler": Plugin()})), pytest.raises(InvalidRequest) as caught:
        find_preset("v5.1-7b").complete(asked(sampler="euler"))
    assert caught.value.message == "the model 'v5.1-7b' cannot use the sampler 'euler'"
    assert caught.value.hint == "It was trained for: flow."


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(UnknownComponent, match=r"Did you mean 'v5.1-7b-inp'"):
        find_preset("v5.1-7b-imp")


def test_a_plugin_adds_a_preset_as_a_file(tmp_path: Path):
    text = files("easyanimate_core.presets").joinpath("data", "nano.toml").read_text(encoding="utf-8")

    class Plugin:
        @hookimpl
        def easyanimate_register(self, registrar: Registrar) -> None:
            registrar.add(PRESETS, "mine", "my_models:mine.toml")
            registrar.add(PRESETS, "typo", "my_models:typo.toml")
            registrar.add(PRESETS, "torn", "my_models:torn.toml")

    with temporary_site(tmp_path) as site:
        site.module("my_models.__init__", "")
        folder = tmp_path / "my_models"
        folder.joinpath("mine.toml").write_text(text.replace("Nano", "Mine"), encoding="utf-8")
        folder.joinpath("typo.toml").write_text(text.replace("text_length", "txt_length"), encoding="utf-8")
        folder.joinpath("torn.toml").write_text("title = ", encoding="utf-8")
        with using(Host(discover=False, plugins={"easyanimate-mine": Plugin()})):
            assert find_preset("mine").title.startswith("Mine")
            with pytest.raises(InvalidOptions, match="preset 'easyanimate-mine:typo': 'txt_length' is not a setting"):
                find_preset("typo")
            with pytest.raises(InvalidOptions, match="preset 'easyanimate-mine:torn'"):
                find_preset("torn")


def test_weights_that_should_be_in_a_package_and_are_not_say_so():
    preset = Preset.model_validate({**find_preset("nano").model_dump(), "bundled": "easyanimate_core.presets:nowhere"})
    with pytest.raises(CheckpointNotFound, match="the weights of 'nano' are not at"):
        preset.bundled_path()
    assert find_preset("v5.1-7b").bundled_path() is None
