"""A component is strings until it is built; names mean one thing; errors say what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributions import Site, temporary_site
from easyanimate_core.errors import DuplicateComponent, InvalidOptions, PluginLoadError, UnknownComponent
from easyanimate_core.plugins import Host, hookimpl, using
from easyanimate_core.registry import Registrar, Registries, Slot
from easyanimate_core.slots import CORE_SLOTS, DENOISERS, SAMPLERS, TEXT_ENCODERS, VAES

FRUIT: Slot[object] = Slot("fruit", "grow on trees")
RECIPES: Slot[object] = Slot("recipes", "are files", data=True)

ORCHARD = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Apple:
    options: object

class Pear:
    pass
"""
OPTIONS = """
from __future__ import annotations
from easyanimate_core.schema import Model

class AppleOptions(Model):
    colour: str = "red"
    \"\"\"What it looks like.\"\"\"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with temporary_site(tmp_path) as site:
        yield site


@pytest.fixture
def registries(site: Site) -> Registries:
    site.module("orchard", ORCHARD)
    site.module("orchard_options", OPTIONS)
    registries = Registries([("fruit", "mango", "easyanimate-tropics"), ("spices", "", "easyanimate-kitchen")])
    registries.open(FRUIT, "easyanimate-core")
    registries.open(RECIPES, "easyanimate-core")
    core = Registrar("easyanimate-core")
    core.add(FRUIT, "apple", "orchard:Apple", options="orchard_options:AppleOptions", aliases=["MalusDomestica"])
    core.add("fruit", "pear", "orchard:Pear", summary="no options")
    registries.adopt(core.entries)
    return registries


def adopt(registries: Registries, owner: str, *entries: tuple[str, str], **more: object) -> None:
    registrar = Registrar(owner)
    for slot, name in entries:
        registrar.add(slot, name, "orchard:Pear", **more)  # type: ignore[arg-type]
    registries.adopt(registrar.entries)


def test_registering_and_listing_import_nothing(registries: Registries):
    fruit = registries[FRUIT]
    assert fruit.names == ("apple", "pear")
    assert [entry.summary for entry in fruit] == ["", "no options"]
    assert "orchard" not in sys.modules
    assert "orchard_options" not in sys.modules


def test_options_are_checked_without_importing_the_component(registries: Registries):
    checked = registries[FRUIT].validate("apple", {"colour": "green"})
    assert checked is not None
    assert checked.model_dump() == {"colour": "green"}
    assert "orchard" not in sys.modules


@pytest.mark.parametrize("name", ["apple", "APPLE", "malusdomestica", "easyanimate-core:apple", " Apple "])
def test_a_component_is_found_by_name_alias_or_qualified_name_in_any_case(registries: Registries, name: str):
    assert registries[FRUIT].get(name).qualified == "easyanimate-core:apple"


def test_create_validates_imports_and_builds(registries: Registries):
    apple = registries[FRUIT].create("apple", {"colour": "green"})
    assert apple.options.colour == "green"  # type: ignore[attr-defined]
    assert registries[FRUIT].create("apple").options.colour == "red"  # type: ignore[attr-defined]
    assert type(registries[FRUIT].create("pear")).__name__ == "Pear"


def test_wrong_options_are_one_line_with_a_hint(registries: Registries):
    with pytest.raises(InvalidOptions) as caught:
        registries[FRUIT].create("apple", {"color": "green"})
    assert caught.value.message == ("options of 'apple' in 'fruit': 'color' is not a setting, but it was given 'green'")
    assert caught.value.hint == "Did you mean 'colour'?"
    with pytest.raises(InvalidOptions, match="'pear' in 'fruit' has no options, but was given 'colour'"):
        registries[FRUIT].create("pear", {"colour": "green"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("aple", "Did you mean 'apple'?"),
        ("malus-domestica", "Did you mean 'MalusDomestica'?"),
        ("zebra", "Known: apple, pear."),
        ("mango", "Known: apple, pear. Installing easyanimate-tropics provides it."),
    ],
)
@pytest.mark.feature("C008")
def test_an_unknown_name_is_answered_with_the_nearest_or_all_or_where_to_get_it(
    registries: Registries, name: str, hint: str
):
    with pytest.raises(UnknownComponent) as caught:
        registries[FRUIT].get(name)
    assert caught.value.message == f"no 'fruit' component is called '{name}'"
    assert caught.value.hint == hint


def test_an_unknown_slot_says_who_opens_it(registries: Registries):
    with pytest.raises(UnknownComponent, match="Installing easyanimate-kitchen provides it"):
        registries.named("spices")
    with pytest.raises(UnknownComponent, match="Did you mean 'fruit'"):
        registries.named("fruits")


def test_two_owners_of_one_name_are_told_apart_and_told_what_to_do(registries: Registries):
    with pytest.raises(DuplicateComponent) as caught:
        adopt(registries, "easyanimate-clash", ("fruit", "plum"), ("fruit", "Apple"))
    assert caught.value.message == "easyanimate-clash registers 'Apple' in 'fruit', but easyanimate-core already does"
    assert 'replaces="easyanimate-core:apple"' in caught.value.hint
    assert registries[FRUIT].names == ("apple", "pear"), "a plugin is adopted whole or not at all"


def test_one_owner_may_not_use_a_name_twice(registries: Registries):
    with pytest.raises(DuplicateComponent, match="registers 'plum' in 'fruit' twice"):
        adopt(registries, "easyanimate-twice", ("fruit", "plum"), ("fruit", "plum"))


def test_an_alias_clashes_as_a_name_does(registries: Registries):
    with pytest.raises(DuplicateComponent, match="'malusdomestica'"):
        adopt(registries, "easyanimate-alias", ("fruit", "plum"), aliases=["malusdomestica"])


def test_replacing_takes_over_the_names_and_leaves_the_qualified_one(registries: Registries):
    adopt(registries, "easyanimate-better", ("fruit", "apple"), replaces="easyanimate-core:apple")
    fruit = registries[FRUIT]
    assert fruit.get("apple").owner == "easyanimate-better"
    assert fruit.get("MalusDomestica").owner == "easyanimate-better"
    assert fruit.get("easyanimate-core:apple").owner == "easyanimate-core"
    assert fruit.names == ("pear", "apple")


def test_only_one_plugin_can_replace_a_component(registries: Registries):
    adopt(registries, "easyanimate-a", ("fruit", "apple"), replaces="easyanimate-core:apple")
    with pytest.raises(DuplicateComponent, match="easyanimate-b registers 'apple' in 'fruit', but easyanimate-a"):
        adopt(registries, "easyanimate-b", ("fruit", "apple"), replaces="easyanimate-core:apple")


def test_replacing_what_is_not_there_is_an_error(registries: Registries):
    with pytest.raises(UnknownComponent, match="easyanimate-core:quince"):
        adopt(registries, "easyanimate-better", ("fruit", "apple"), replaces="easyanimate-core:quince")


def test_an_entry_for_a_slot_that_nobody_opens_is_parked(registries: Registries):
    adopt(registries, "easyanimate-extra", ("rewards", "sharpness"), ("fruit", "plum"))
    assert [entry.qualified for entry in registries.parked] == ["easyanimate-extra:sharpness"]
    assert "plum" in registries[FRUIT]


def test_a_slot_is_opened_once(registries: Registries):
    with pytest.raises(DuplicateComponent, match="easyanimate-x opens the slot 'fruit', but easyanimate-core"):
        registries.open(Slot("fruit", "again"), "easyanimate-x")


def test_a_component_that_does_not_import_names_the_extra_to_install(registries: Registries):
    adopt(registries, "easyanimate-nut", ("fruit", "walnut"), requires=["shell"])
    registrar = Registrar("easyanimate-nut")
    registrar.add("fruit", "hazel", "no_such_module:Hazel", requires=["shell", "tree"])
    registries.adopt(registrar.entries)
    with pytest.raises(PluginLoadError) as caught:
        registries[FRUIT].create("hazel")
    assert "'easyanimate-nut:hazel' did not load from 'no_such_module:Hazel'" in caught.value.message
    assert caught.value.hint == "pip install -U 'easyanimate-nut[shell,tree]'"


def test_options_must_be_a_model_without_a_field_called_name(registries: Registries, site: Site):
    site.module("odd_options", "from pydantic import BaseModel\nclass Odd(BaseModel):\n    name: str = ''\n")
    registrar = Registrar("easyanimate-odd")
    registrar.add("fruit", "odd", "orchard:Pear", options="odd_options:Odd")
    registries.adopt(registrar.entries)
    with pytest.raises(PluginLoadError, match="without a field 'name'"):
        registries[FRUIT].options_model("odd")


@pytest.mark.parametrize(("name", "target"), [("two words", "a.b:C"), ("a:b", "a.b:C"), ("", "a.b:C"), ("fine", "a.b")])
def test_a_name_or_path_that_is_not_one_is_refused_at_once(name: str, target: str):
    with pytest.raises(PluginLoadError, match="easyanimate-typo registers"):
        Registrar("easyanimate-typo").add("fruit", name, target)


def test_entries_of_a_data_slot_are_files_of_a_package(registries: Registries, site: Site):
    site.module("cellar.__init__", "")
    (site.folder / "cellar" / "data").mkdir()
    (site.folder / "cellar" / "data" / "jam.toml").write_text("sugar = 1")
    registrar = Registrar("easyanimate-jam")
    registrar.add(RECIPES, "jam", "cellar:data/jam.toml")
    registrar.add(RECIPES, "jelly", "cellar:data/jelly.toml")
    registries.adopt(registrar.entries)
    assert registries[RECIPES].resource("jam").read_text() == "sugar = 1"
    with pytest.raises(PluginLoadError, match=r"no file 'data/jelly.toml' in 'cellar'"):
        registries[RECIPES].resource("jelly")
    with pytest.raises(PluginLoadError):
        Registrar("easyanimate-escape").add(RECIPES, "secret", "cellar:../secret.toml")


@pytest.mark.feature("C001", "C008", "C021", "C029")
@pytest.mark.parametrize(
    ("slot", "name", "released_name"),
    [
        (TEXT_ENCODERS, "qwen2-vl", "Qwen2VLForConditionalGeneration"),
        (DENOISERS, "mmdit", "EasyAnimateTransformer3DModel"),
        (VAES, "magvit", "AutoencoderKLMagvit"),
        (SAMPLERS, "flow", "FlowMatchEulerDiscreteScheduler"),
    ],
    ids=lambda value: value.name if isinstance(value, Slot) else value,
)
def test_core_components_resolve_by_name_and_by_the_class_in_a_released_config(
    slot: Slot[object], name: str, released_name: str
):
    registry = Host(discover=False).registries[slot]
    assert registry.get(released_name) is registry.get(name)
    assert callable(registry.load(name))


def test_every_core_slot_is_open_and_says_what_it_is_for():
    host = Host(discover=False)
    assert host.registries.slots == CORE_SLOTS
    assert all(slot.summary for slot in CORE_SLOTS)


@pytest.mark.feature("C001")
def test_a_text_encoder_of_a_third_party_is_built_by_name_and_encodes(site: Site):
    site.module(
        "letters",
        '''
        from __future__ import annotations
        import torch
        from easyanimate_core.data import TextEmbedding

        class Letters:
            """A real, if tiny, encoder: one-hot letters, eight a prompt."""

            def encode(self, prompts):
                ids = torch.tensor([[ord(c) % 32 for c in p.ljust(8)[:8]] for p in prompts])
                mask = torch.tensor([[int(i < len(p)) for i in range(8)] for p in prompts])
                return TextEmbedding(torch.nn.functional.one_hot(ids, 32).float(), mask)
        ''',
    )

    class Plugin:
        @hookimpl
        def easyanimate_register(self, registrar: Registrar) -> None:
            registrar.add(TEXT_ENCODERS, "letters", "letters:Letters")

    with using(Host(discover=False, plugins={"easyanimate-letters": Plugin()})) as host:
        embedding = host.registries[TEXT_ENCODERS].create("letters").encode(["circle"])
    assert embedding.states.shape == (1, 8, 32)
    assert embedding.mask.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]


def test_importing_listing_and_describing_load_no_torch():
    code = """
import sys
import easyanimate_core
assert "pydantic" not in sys.modules, "the package alone imports no pydantic"
from easyanimate_core.plugins import Host
from easyanimate_core.request import GenerationRequest
from easyanimate_core.presets import all_presets
from easyanimate_core.schema import export_schema
from easyanimate_core.slots import SAMPLERS
host = Host(discover=False)
assert host.registries[SAMPLERS].options_model("flow")
assert all_presets() and export_schema(GenerationRequest)
heavy = {"torch", "diffusers", "transformers", "numpy", "av", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
