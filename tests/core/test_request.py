"""A request is one strict document; what it leaves open is decided by the preset, and its seeds by arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from easyanimate_core.errors import InvalidRequest, UnknownComponent
from easyanimate_core.plugins import Host, using
from easyanimate_core.request import GenerationRequest, Size
from easyanimate_core.schema import export_schema, parse


@pytest.fixture(autouse=True)
def core_alone() -> Iterator[None]:
    with using(Host(discover=False)):
        yield


def request(**said: Any) -> GenerationRequest:
    return parse(GenerationRequest, {"prompt": "a red circle", **said}, InvalidRequest)


def test_a_prompt_is_enough():
    asked = request()
    assert asked.model == "nano"
    assert asked.prompts == ("a red circle",)
    assert (asked.size, asked.frames, asked.steps, asked.guidance, asked.seed, asked.sampler) == (None,) * 6
    assert (asked.offload.name, asked.storage.name) == ("auto", "auto")


@pytest.mark.parametrize("said", ["384x672", "384 × 672", (384, 672), [384, 672], {"height": 384, "width": 672}])
def test_a_size_is_height_before_width_however_it_is_written(said: Any):
    size = request(size=said).size
    assert size == Size(height=384, width=672)
    assert str(size) == "384x672"


@pytest.mark.feature("C039")
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"prompt": ""}, "'prompt' is '': it must not be empty"),
        ({"prompt": "  \n"}, "'prompt' is '': it must not be empty"),
        ({"prompt": ()}, "'prompt' is '()': it must not be empty"),
        ({"prompt": ["a", " "]}, "'prompt' is '['a', ' ']': it must not be empty"),
        ({"prompt": 5}, "'prompt' is '5': it must be text, or a list of texts"),
        ({"size": "huge"}, "'size' is 'huge': it must be HEIGHTxWIDTH in pixels, such as 384x672"),
        ({"size": (64,)}, "'size' is '(64,)': it must be two numbers"),
        ({"size": "0x64"}, "'size.height' is '0': it must be at least 16"),
        ({"frames": 0}, "'frames' is '0': it must be at least 1"),
        ({"frames": 2.5}, "'frames' is '2.5': it must be a whole number"),
        ({"fps": 0}, "'fps' is '0': it must be more than 0"),
        ({"steps": 0}, "'steps' is '0': it must be at least 1"),
        ({"guidance": 0.5}, "'guidance' is '0.5': it must be at least 1"),
        ({"guidance": float("nan")}, "'guidance' is 'nan': it must be a finite number"),
        ({"guidance_rescale": 2}, "'guidance_rescale' is '2': it must be at most 1"),
        ({"seed": -1}, "'seed' is '-1': it must be at least 0"),
        ({"seed": 2**63}, "'seed' is '9223372036854775808': it must be less than 9223372036854775808"),
        ({"scale": 17}, "'scale' is '17': it must be at most 16"),
        ({"videos_per_prompt": 0}, "'videos_per_prompt' is '0': it must be at least 1"),
        ({"framez": 9}, "'framez' is not a setting, but it was given '9'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_no_model_can_do_is_refused_with_the_field_and_the_value(said: dict[str, Any], message: str):
    with pytest.raises(InvalidRequest) as caught:
        request(**said)
    assert caught.value.message.startswith(message)


def test_an_unknown_component_is_refused_with_a_hint():
    with pytest.raises(UnknownComponent, match="Did you mean 'flow'"):
        request(sampler="flwo")
    with pytest.raises(UnknownComponent, match="Installing easyanimate-control provides it"):
        request(conditions=["camera"])


@pytest.mark.feature("C006")
def test_prompts_of_any_language_pass_unchanged():
    prompt = "湖面上的烟花 🎆 ‒ fuegos artificiales"
    asked = request(prompt=prompt)
    assert parse(GenerationRequest, asked.model_dump_json()).prompt == prompt


def test_a_path_to_weights_is_kept_as_text():
    assert request(weights=Path("models") / "nano").weights == str(Path("models") / "nano")


@pytest.mark.feature("C062")
def test_samples_have_consecutive_seeds_that_wrap():
    asked = request(prompt=["a", "b"], videos_per_prompt=2, seed=2**63 - 2)
    assert asked.batch == 4
    assert asked.sample_seeds() == (2**63 - 2, 2**63 - 1, 0, 1)


@pytest.mark.feature("C062")
def test_a_seed_is_drawn_once_and_recorded():
    asked = request()
    with pytest.raises(ValueError, match="no seed"):
        asked.sample_seeds()
    drawn = asked.seeded()
    assert drawn.seed is not None
    assert 0 <= drawn.seed < 2**32
    assert drawn.seeded() is drawn
    assert {asked.seeded().seed for _ in range(8)} != {drawn.seed}
    assert request(seed=0).seeded().seed == 0, "zero is a seed"


def test_a_request_round_trips_through_json():
    asked = request(prompt=("a", "b"), size="64x96", sampler={"name": "flow", "shift": 3.0}, seed=7, frames=9)
    assert parse(GenerationRequest, asked.model_dump_json()) == asked


def test_every_field_says_what_it_is_and_its_default():
    described = export_schema(GenerationRequest)["properties"]
    for name, field in described.items():
        assert field["description"].endswith("."), name
        assert name == "prompt" or "default" in field["description"].lower(), name
