"""Plugins are found, admitted whole or not at all, and called in one order; a broken one is reported, never fatal."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from distributions import Site, temporary_site
from easyanimate_core.errors import (
    DuplicateComponent,
    IncompatiblePlugin,
    InvalidPlan,
    PluginError,
    PluginLoadError,
    UnknownComponent,
)
from easyanimate_core.events import SILENT, Event, EventBus, Notice, Step
from easyanimate_core.plugins import Host, PluginStatus, active, hookimpl, using
from easyanimate_core.registry import Registrar
from easyanimate_core.slots import SAMPLERS

SIBLINGS = "easyanimate-control,easyanimate-train,easyanimate-ui"
"""Left out here: these tests install their own."""

GOOD = """
from easyanimate_core.plugins import hookimpl

@hookimpl
def easyanimate_register(registrar):
    registrar.add("samplers", "heun", "good_heun:Heun", summary="second-order Heun")
"""
CLASHING = """
from easyanimate_core.plugins import hookimpl

@hookimpl
def easyanimate_register(registrar):
    registrar.add("samplers", "fine", "nowhere:Fine")
    registrar.add("samplers", "flow", "nowhere:Flow")
"""
KITCHEN = """
from easyanimate_core.plugins import hookimpl
from easyanimate_core.registry import Slot

@hookimpl
def easyanimate_slots():
    return [Slot("spices", "make food hot")]

@hookimpl
def easyanimate_register(registrar):
    registrar.add("spices", "pepper", "nowhere:Pepper")
"""
GUEST = """
from easyanimate_core.plugins import hookimpl

@hookimpl
def easyanimate_register(registrar):
    registrar.add("spices", "saffron", "nowhere:Saffron")
    registrar.add("samplers", "guest", "nowhere:Guest")
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with temporary_site(tmp_path) as site:
        yield site


def host(**environ: str) -> Host:
    disabled = ",".join([SIBLINGS, environ.pop("EASYANIMATE_DISABLE_PLUGINS", "")])
    return Host(environ={**environ, "EASYANIMATE_DISABLE_PLUGINS": disabled})


def status(host: Host, distribution: str) -> PluginStatus:
    (found,) = [plugin for plugin in host.plugins if plugin.distribution == distribution]
    return found


def test_core_is_plugin_number_zero():
    first = host().plugins[0]
    assert (first.name, first.distribution, first.state) == ("core", "easyanimate-core", "loaded")
    assert first.slots
    assert {entry.owner for entry in first.entries} == {"easyanimate-core"}
    assert not first.parked


def test_an_installed_plugin_is_found_and_listed_without_importing_its_components(site: Site):
    site.install(
        "easyanimate-good", {"good_plugin": GOOD, "good_heun": "class Heun: pass"}, version="2.1", good="good_plugin"
    )
    found = host()
    listed = status(found, "easyanimate-good")
    assert (listed.name, listed.version, listed.state, listed.reason) == ("good", "2.1", "loaded", "")
    assert [entry.qualified for entry in listed.entries] == ["easyanimate-good:heun"]
    assert "good_heun" not in sys.modules
    assert type(found.registries[SAMPLERS].create("heun")).__name__ == "Heun"


def test_the_owner_is_the_distribution_in_its_normal_form(site: Site):
    site.install("EasyAnimate_Good", {"good_plugin": GOOD}, good="good_plugin")
    assert host().registries[SAMPLERS].get("heun").owner == "easyanimate-good"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module", "did not load: ModuleNotFoundError(\"No module named 'no_such_module'\")"),
        ("1 / 0", "did not load: ZeroDivisionError('division by zero')"),
        ("def broken(:", "did not load: SyntaxError"),
        (GOOD + "    raise RuntimeError('halfway')\n", "failed in easyanimate_register: RuntimeError('halfway')"),
        (GOOD.replace('"heun"', '"two words"'), "registers 'two words' in 'samplers', which is not a name"),
    ],
    ids=["missing import", "any exception", "syntax", "while registering", "bad name"],
)
def test_a_broken_plugin_is_reported_with_a_remedy_and_the_others_load(site: Site, source: str, said: str):
    site.install("easyanimate-broken", {"broken_plugin": source}, version="0.1.0", broken="broken_plugin")
    site.install("easyanimate-good", {"good_plugin": GOOD.replace("heun", "other")}, good="good_plugin")
    found = host()
    broken = status(found, "easyanimate-broken")
    assert broken.state == "broken"
    assert said in broken.reason
    assert not broken.entries
    assert "heun" not in found.registries[SAMPLERS]
    assert "other" in found.registries[SAMPLERS]


def test_the_remedy_names_the_switch(site: Site):
    site.install("easyanimate-broken", {"broken_plugin": "import x_y_z"}, version="0.1.0", broken="broken_plugin")
    assert status(host(), "easyanimate-broken").reason == (
        "plugin 'broken' from easyanimate-broken 0.1.0 did not load: ModuleNotFoundError(\"No module named 'x_y_z'\")\n"
        "pip install -U easyanimate-broken, or set EASYANIMATE_DISABLE_PLUGINS=broken"
    )


def test_a_plugin_that_clashes_is_not_adopted_at_all(site: Site):
    site.install("easyanimate-clash", {"clash_plugin": CLASHING}, clash="clash_plugin")
    found = host()
    clash = status(found, "easyanimate-clash")
    assert clash.state == "broken"
    assert "easyanimate-clash registers 'flow' in 'samplers', but easyanimate-core already does" in clash.reason
    assert 'replaces="easyanimate-core:flow"' in clash.reason
    assert "fine" not in found.registries[SAMPLERS]
    assert found.registries[SAMPLERS].get("flow").owner == "easyanimate-core"


def test_of_two_plugins_with_one_name_the_first_by_distribution_name_wins(site: Site):
    site.install("easyanimate-zzz", {"zzz_plugin": GOOD}, zzz="zzz_plugin")
    site.install("easyanimate-aaa", {"aaa_plugin": GOOD}, aaa="aaa_plugin")
    found = host()
    assert found.registries[SAMPLERS].get("heun").owner == "easyanimate-aaa"
    assert status(found, "easyanimate-zzz").state == "broken"


def test_slots_are_open_before_anyone_registers_so_order_does_not_matter(site: Site):
    site.install("easyanimate-aguest", {"guest_plugin": GUEST}, guest="guest_plugin")
    site.install("easyanimate-kitchen", {"kitchen_plugin": KITCHEN}, kitchen="kitchen_plugin")
    found = host()
    assert set(found.registries.named("spices").names) == {"saffron", "pepper"}
    assert [slot.name for slot in status(found, "easyanimate-kitchen").slots] == ["spices"]


def test_an_entry_for_a_closed_slot_is_parked_and_the_plugin_is_loaded(site: Site):
    site.install("easyanimate-aguest", {"guest_plugin": GUEST}, guest="guest_plugin")
    found = host()
    guest = status(found, "easyanimate-aguest")
    assert guest.state == "loaded"
    assert [entry.name for entry in guest.parked] == ["saffron"]
    assert [entry.name for entry in guest.entries] == ["saffron", "guest"]
    assert "guest" in found.registries[SAMPLERS]
    with pytest.raises(UnknownComponent, match="no slot is called 'spices'"):
        found.registries.named("spices")


def test_the_slots_of_a_plugin_that_fails_later_are_closed_again(site: Site):
    site.install("easyanimate-aguest", {"guest_plugin": GUEST}, guest="guest_plugin")
    clashing_kitchen = KITCHEN + '    registrar.add("samplers", "flow", "nowhere:Flow")\n'
    site.install("easyanimate-kitchen", {"kitchen_plugin": clashing_kitchen}, kitchen="kitchen_plugin")
    found = host()
    assert status(found, "easyanimate-kitchen").state == "broken"
    assert [entry.name for entry in status(found, "easyanimate-aguest").parked] == ["saffron"]


def test_two_plugins_cannot_open_one_slot(site: Site):
    site.install("easyanimate-kitchen", {"kitchen_plugin": KITCHEN}, kitchen="kitchen_plugin")
    site.install("easyanimate-kitchen2", {"kitchen_plugin2": KITCHEN}, kitchen="kitchen_plugin2")
    found = host()
    assert found.registries.named("spices").names == ("pepper",)
    assert (
        "opens the slot 'spices', but easyanimate-kitchen already does" in status(found, "easyanimate-kitchen2").reason
    )


@pytest.mark.parametrize("name", ["good", "easyanimate-good", "GOOD", "x, good"])
def test_a_disabled_plugin_is_not_imported(site: Site, name: str):
    site.install("easyanimate-good", {"good_plugin": GOOD}, good="good_plugin")
    found = host(EASYANIMATE_DISABLE_PLUGINS=name)
    good = status(found, "easyanimate-good")
    assert (good.state, good.reason) == ("disabled", "named in EASYANIMATE_DISABLE_PLUGINS")
    assert "good_plugin" not in sys.modules
    assert "heun" not in found.registries[SAMPLERS]


def test_a_disabled_name_that_is_not_installed_is_mentioned(caplog: pytest.LogCaptureFixture):
    host(EASYANIMATE_DISABLE_PLUGINS="misspelt")
    assert "'misspelt', which is not installed" in caplog.text


@pytest.mark.parametrize(
    ("source", "error"),
    [("import no_such_module", PluginLoadError), (CLASHING, DuplicateComponent)],
    ids=["broken", "clashing"],
)
def test_strict_raises_what_would_be_reported(site: Site, source: str, error: type[PluginError]):
    site.install("easyanimate-broken", {"broken_plugin": source}, broken="broken_plugin")
    with pytest.raises(error, match="easyanimate-broken"):
        host(EASYANIMATE_STRICT_PLUGINS="1")
    assert status(host(EASYANIMATE_STRICT_PLUGINS="0"), "easyanimate-broken").state == "broken"


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ("def easyanimate_future(x): pass", "'easyanimate_future', which this version of the SDK does not have"),
        ("def easyanimate_event(event, mood): pass", "mood"),
        ("def easyanimate_slots(): return ['spices']", "easyanimate_slots gave 'spices', which is not a Slot"),
    ],
    ids=["unknown hook", "unknown argument", "not a slot"],
)
def test_a_plugin_for_other_hooks_is_incompatible(site: Site, hook: str, why: str):
    source = f"from easyanimate_core.plugins import hookimpl\n@hookimpl\n{hook}\n"
    site.install("easyanimate-future", {"future_plugin": source}, future="future_plugin")
    reason = status(host(), "easyanimate-future").reason
    assert "does not fit this version of the SDK" in reason
    assert why in reason
    with pytest.raises(IncompatiblePlugin):
        host(EASYANIMATE_STRICT_PLUGINS="1")


def test_tracing_writes_hook_calls_to_stderr(site: Site, capsys: pytest.CaptureFixture[str]):
    site.install("easyanimate-good", {"good_plugin": GOOD}, good="good_plugin")
    host(EASYANIMATE_TRACE_HOOKS="1")
    captured = capsys.readouterr()
    assert "easyanimate_register" in captured.err
    assert not captured.out


class Planner:
    """A plugin that writes its name into the plan."""

    def __init__(self, name: str) -> None:
        self.name = name

    @hookimpl
    def easyanimate_plan(self, plan: list[str], request: object) -> None:
        plan.append(self.name)


class LastPlanner(Planner):
    @hookimpl(trylast=True)
    def easyanimate_plan(self, plan: list[str], request: object) -> None:
        plan.append(self.name)


def test_plan_hooks_run_by_distribution_name_and_respect_trylast():
    plugins = {"easyanimate-c": Planner("c"), "easyanimate-a": LastPlanner("a"), "easyanimate-b": Planner("b")}
    plan: list[str] = []
    Host(discover=False, plugins=plugins).plan(plan, None)
    assert plan == ["b", "c", "a"]


def test_a_plan_hook_that_fails_ends_the_run_and_is_named():
    class Wrong:
        @hookimpl
        def easyanimate_plan(self, plan: object) -> None:
            raise KeyError("decode")

    class Refusing:
        @hookimpl
        def easyanimate_plan(self, plan: object) -> None:
            raise InvalidPlan("no stage is called 'decode'")

    with pytest.raises(PluginLoadError, match=r"plugin 'wrong' from easyanimate-wrong failed in easyanimate_plan: Key"):
        Host(discover=False, plugins={"easyanimate-wrong": Wrong()}).plan(None, None)
    with pytest.raises(InvalidPlan):
        Host(discover=False, plugins={"easyanimate-refusing": Refusing()}).plan(None, None)


class Listener:
    """A plugin that keeps what it hears, and may be bad at it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.heard: list[Event] = []
        self.fails = fails

    @hookimpl
    def easyanimate_event(self, event: Event) -> None:
        self.heard.append(event)
        if self.fails:
            raise RuntimeError("no disk")


def test_every_listener_hears_every_event_and_a_failing_one_is_muted_and_logged_once(caplog: pytest.LogCaptureFixture):
    bad, good = Listener(fails=True), Listener()
    listening = Host(discover=False, plugins={"easyanimate-bad": bad, "easyanimate-good": good})
    events = [Step(index, 3) for index in range(3)]
    with caplog.at_level(logging.WARNING):
        for event in events:
            listening.event(event)
    assert good.heard == events
    assert bad.heard == events[:1]
    messages = [record.getMessage() for record in caplog.records]
    failed = "plugin 'bad' from easyanimate-bad failed in easyanimate_event: RuntimeError('no disk')"
    assert messages == [f"{failed}; its easyanimate_event is muted"]


def test_strict_raises_from_an_event_hook():
    strict = Host(
        discover=False,
        plugins={"easyanimate-bad": Listener(fails=True)},
        environ={"EASYANIMATE_STRICT_PLUGINS": "1"},
    )
    with pytest.raises(PluginLoadError, match="no disk"):
        strict.event(Step(0, 1))


def test_wiring_a_bus_tells_subscribers_and_plugins_once_each():
    plugin, heard = Listener(), list[Event]()
    listening = Host(discover=False, plugins={"easyanimate-good": plugin})
    bus = listening.wire(listening.wire(EventBus(heard.append)))
    bus.emit(Notice("hello"))
    assert plugin.heard == heard == [Notice("hello")]
    listening.wire(SILENT).emit(Notice("still heard"))
    assert plugin.heard[-1] == Notice("still heard")


def test_without_listeners_a_bus_is_left_as_it_is():
    assert Host(discover=False).wire(SILENT) is SILENT


def test_using_makes_a_host_active_inside_the_block_and_in_this_context_only():
    mine, outer = Host(discover=False), active()
    seen: list[Host] = []
    with using(mine) as given:
        assert given is mine
        assert active() is mine
        thread = threading.Thread(target=lambda: seen.append(active()))
        thread.start()
        thread.join()
        with pytest.raises(ZeroDivisionError), using(Host(discover=False)):
            _ = 1 / 0
        assert active() is mine
    assert active() is outer
    assert seen == [outer]


def test_a_plugin_may_be_any_object_with_hooks():
    plugins = {"easyanimate-object": Planner("a"), "easyanimate-unhashable": SimpleNamespace()}
    _, good, bad = Host(discover=False, plugins=plugins).plugins
    assert good.state == "loaded"
    assert bad.state == "broken"
    assert "unhashable" in bad.reason


def test_a_registrar_says_who_is_registering():
    owners: list[str] = []

    class Curious:
        @hookimpl
        def easyanimate_register(self, registrar: Registrar) -> None:
            owners.append(registrar.owner)

    Host(discover=False, plugins={"easyanimate-curious": Curious()})
    assert owners == ["easyanimate-curious"]


def test_discovery_of_what_is_installed_loads_no_torch():
    code = """
import sys
from easyanimate_core.plugins import active
active()
assert not {"torch", "diffusers", "transformers", "gradio", "pydantic"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
