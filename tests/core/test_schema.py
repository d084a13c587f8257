"""Documents are strict, a choice has many spellings and one meaning, and the JSON Schema knows what is installed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from distributions import Site, temporary_site
from easyanimate_core.errors import InvalidOptions, InvalidRequest, UnknownComponent
from easyanimate_core.interfaces import Sampler
from easyanimate_core.plugins import Host, hookimpl, using
from easyanimate_core.registry import Registrar
from easyanimate_core.schema import Among, Choice, Hint, Model, export_schema, parse
from easyanimate_core.slots import SAMPLERS

HEUN_OPTIONS = '''
from __future__ import annotations
from easyanimate_core.schema import Model
from pydantic import Field

class Noise(Model):
    """What is added."""
    amount: float = Field(default=0.0, ge=0, le=1)

class HeunOptions(Model):
    """Second-order Heun."""
    order: int = Field(default=2, ge=1, le=3)
    """Order, 1 to 3."""
    noise: Noise = Noise()
    """Added at every step."""
    fallback: Noise | None = None
    """Added when the first is not enough."""

class SharedOptions(Model):
    """Of two samplers at once."""
'''


class Plugin:
    """Three samplers: one with nested options, two that share theirs."""

    @hookimpl
    def easyanimate_register(self, registrar: Registrar) -> None:
        registrar.add(SAMPLERS, "heun", "heun:Heun", options="heun_options:HeunOptions", aliases=["H2"], summary="2nd")
        registrar.add(SAMPLERS, "one", "heun:One", options="heun_options:SharedOptions")
        registrar.add(SAMPLERS, "two", "heun:Two", options="heun_options:SharedOptions")
        registrar.add(SAMPLERS, "plain", "heun:Plain")
        registrar.add(SAMPLERS, "broken", "heun:Broken", options="no_such_module:Options")


class Document(Model):
    """A document with each kind of field."""

    steps: Annotated[int, Field(ge=1, le=100), Hint(unit="steps")] = 10
    """How many."""

    sampler: Annotated[Choice[Sampler], Among(SAMPLERS)] | None = None
    """Which."""

    others: tuple[Annotated[Choice[Sampler], Among(SAMPLERS)], ...] = ()
    """And which else."""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Iterator[Site]:
    with temporary_site(tmp_path) as site:
        site.module("heun_options", HEUN_OPTIONS)
        with using(Host(discover=False, plugins={"easyanimate-heun": Plugin()})):
            yield site


def options(name: str = "HeunOptions", **values: Any) -> Any:
    return getattr(importlib.import_module("heun_options"), name)(**values)


def test_attribute_docstrings_are_the_help_texts():
    assert Document.model_fields["steps"].description == "How many."


def test_documents_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Document().steps = 3  # type: ignore[misc]


def test_nan_and_infinity_are_no_numbers():
    class Numbers(Model):
        value: float

    for bad in (float("nan"), float("inf")):
        with pytest.raises(InvalidOptions, match="must be a finite number"):
            parse(Numbers, {"value": bad})


@pytest.mark.parametrize("spelling", ["heun", "HEUN", "h2", "easyanimate-heun:heun"])
def test_a_choice_is_a_name_in_any_spelling(spelling: str):
    assert Document(sampler=spelling).sampler == Choice(SAMPLERS, "heun", "easyanimate-heun", options())  # type: ignore[arg-type]


def test_a_choice_is_a_name_with_options_or_the_options_alone():
    by_name = parse(Document, {"sampler": {"name": "heun", "order": 3}}).sampler
    by_options = parse(Document, {"sampler": options(order=3)}).sampler
    assert by_name == by_options == parse(Document, {"sampler": by_name}).sampler
    assert by_name is not None
    assert by_name.options == options(order=3)
    assert by_name.given == {"order": 3}, "what was not said is for the checkpoint to decide"


@pytest.mark.parametrize("said", ["heun", "plain", {"name": "heun", "order": 3, "noise": {"amount": 0.5}}])
def test_documents_round_trip_through_json_with_qualified_names(said: Any):
    document = parse(Document, {"sampler": said, "others": [said, "flow"]})
    text = document.model_dump_json()
    assert parse(Document, text) == document
    assert parse(Document, document.model_dump()) == document
    saved = json.loads(text)["sampler"]
    assert (saved if isinstance(saved, str) else saved["name"]).startswith("easyanimate-heun:")


def test_options_that_two_components_share_do_not_choose_one():
    with pytest.raises(InvalidOptions, match=r"options of several components \(easyanimate-heun:one"):
        parse(Document, {"sampler": options("SharedOptions")})
    assert parse(Document, {"sampler": {"name": "two"}}).sampler is not None


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        ({"stpes": 3}, "'stpes' is not a setting, but it was given '3'", "Did you mean 'steps'?"),
        ({"zzz": 1}, "'zzz' is not a setting, but it was given '1'", "Known: steps, sampler, others."),
        ({"steps": 0}, "'steps' is '0': it must be at least 1", ""),
        ({"steps": "ten"}, "'steps' is 'ten': it must be a whole number", ""),
        (
            {"sampler": {"name": "heun", "ordr": 2}},
            "'sampler.ordr' is not a setting, but it was given '2'",
            "Did you mean 'order'?",
        ),
        (
            {"others": ["flow", {"name": "heun", "noise": {"amount": 2}}]},
            "'others[1].noise.amount' is '2': it must be at most 1",
            "",
        ),
        (
            {"sampler": {"name": "plain", "order": 2}},
            "'sampler.order' is not a setting, but it was given '2'",
            "It has no settings.",
        ),
        (
            {"sampler": {"order": 2}},
            "'sampler' is '{'order': 2}': it must be a component's name, or an object with 'name' and its options",
            "",
        ),
        (
            {"steps": 0, "sampler": 5},
            "'steps' is '0': it must be at least 1",
            "Also wrong: 'sampler'.",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_said_in_one_line_with_path_value_and_hint(data: dict[str, Any], message: str, hint: str):
    with pytest.raises(InvalidRequest) as caught:
        parse(Document, data, InvalidRequest, of="job.toml")
    assert caught.value.message == f"job.toml: {message}"
    assert "\n" not in caught.value.message
    assert caught.value.hint == hint


def test_a_long_value_is_shortened():
    with pytest.raises(InvalidOptions) as caught:
        parse(Document, {"steps": "many\n" * 100})
    assert len(caught.value.message) < 140
    assert "\n" not in caught.value.message


def test_an_unknown_component_is_known_as_such():
    with pytest.raises(UnknownComponent, match="Did you mean 'heun'"):
        parse(Document, {"sampler": "huen"})


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def test_the_json_schema_describes_the_options_of_what_is_installed():
    schema = export_schema(Document)
    (choice, _) = schema["properties"]["sampler"]["anyOf"]
    assert choice["x-slot"] == "samplers"
    names, *forms = choice["anyOf"]
    assert [name for name in names["enum"] if ":" not in name][6:8] == ["flow", "heun"]
    assert {"H2", "easyanimate-heun:heun"} <= set(names["enum"])
    heun = next(form for form in forms if form["title"] == "heun")
    assert heun["required"] == ["name"]
    assert heun["properties"]["order"]["maximum"] == 3
    assert heun["properties"]["order"]["description"] == "Order, 1 to 3."
    assert heun["additionalProperties"] is False
    assert heun["description"] == "2nd"
    titles = {form["title"] for form in forms}
    assert {"flow", "heun", "one", "two", "plain"} <= titles, "broken options hide nobody else's"


def test_every_reference_in_the_json_schema_leads_somewhere():
    schema = export_schema(Document)
    found = set(references(schema))
    assert found, "nested options are shared definitions"
    for reference in found:
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_a_hint_is_exported_where_it_says_something():
    assert export_schema(Document)["properties"]["steps"]["x-hint"] == {"unit": "steps"}
