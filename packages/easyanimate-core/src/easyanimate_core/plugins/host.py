"""Finds plugins, admits them one at a time, and calls their hooks.

```
entry points "easyanimate" ─▶ load ─▶ easyanimate_slots ─▶ easyanimate_register ─▶ adopt whole or not at all
                               └────────────── a failure is reported, never fatal ──────────────┘
```

Three switches of the environment: `EASYANIMATE_DISABLE_PLUGINS=a,b` leaves plugins (or whole distributions)
out, `EASYANIMATE_STRICT_PLUGINS=1` raises what would be reported, `EASYANIMATE_TRACE_HOOKS=1` writes every hook
call to stderr.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import pluggy

from easyanimate_core.errors import EasyAnimateError, IncompatiblePlugin, PluginLoadError
from easyanimate_core.events import EventBus
from easyanimate_core.plugins import hookspecs
from easyanimate_core.plugins.siblings import SIBLINGS
from easyanimate_core.registry import Entry, Registrar, Registries, Slot

if TYPE_CHECKING:
    from easyanimate_core.events import Event

__all__ = ["CORE", "Host", "PluginStatus", "active", "using"]

CORE: Final = "easyanimate-core"
"""Owner of the components that core registers itself."""

_BUILTIN: Final = "easyanimate_core.plugins.builtin"
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """What became of one plugin.

    Attributes:
        name: name of its entry point.
        distribution: where it comes from; the owner of its entries.
        version: of the distribution, empty when unknown.
        state: `loaded`, `disabled` by the environment, or `broken`.
        reason: why it is not loaded, with what to do about it.
        slots: slots that it opened.
        entries: what it registered.
        parked: those of its entries whose slot nobody opens.
    """

    name: str
    distribution: str
    version: str
    state: Literal["loaded", "disabled", "broken"] = "loaded"
    reason: str = ""
    slots: tuple[Slot[Any], ...] = ()
    entries: tuple[Entry[Any], ...] = ()
    parked: tuple[Entry[Any], ...] = ()


@dataclass(slots=True, eq=False)
class _Plugin:
    """A plugin on its way to adoption."""

    name: str
    distribution: str
    version: str
    load: Callable[[], object]
    error: EasyAnimateError | None = None
    slots: tuple[Slot[Any], ...] = ()
    entries: tuple[Entry[Any], ...] = ()
    muted: bool = False

    @property
    def key(self) -> str:
        """Its name in the plugin manager: two distributions may use one entry-point name."""
        return f"{self.distribution}:{self.name}"

    @property
    def title(self) -> str:
        return f"plugin '{self.name}' from {self.distribution} {self.version}".rstrip()

    @property
    def remedy(self) -> str:
        return f"pip install -U {self.distribution}, or set EASYANIMATE_DISABLE_PLUGINS={self.name}"


class Host:
    """The admitted plugins and their registries.

    Attributes:
        registries: every open slot with its components.
    """

    def __init__(
        self,
        *,
        discover: bool = True,
        plugins: Mapping[str, object] = MappingProxyType({}),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Discover and admit plugins.

        Args:
            discover: look for installed distributions; without, only core and `plugins` are admitted.
            plugins: further plugins (modules or objects) by the distribution name that shall own their
                entries; for examples, notebooks and tests.
            environ: where the switches are read; `os.environ` when `None`.

        Raises:
            PluginError: only under `EASYANIMATE_STRICT_PLUGINS`, or if core itself cannot be adopted.
        """
        env = os.environ if environ is None else environ
        self._strict = _is_set(env, "EASYANIMATE_STRICT_PLUGINS")
        disabled = {name.strip().casefold() for name in env.get("EASYANIMATE_DISABLE_PLUGINS", "").split(",")} - {""}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        if _is_set(env, "EASYANIMATE_TRACE_HOOKS"):
            self._manager.trace.root.setwriter(sys.stderr.write)
            self._manager.enable_tracing()

        found = [_core(), *_sorted([*(_installed() if discover else []), *_given(plugins)])]
        self._disabled = [p for p in found[1:] if {p.name.casefold(), p.distribution.casefold()} & disabled]
        self._plugins = [p for p in found if p not in self._disabled]
        for name in sorted(disabled - {n.casefold() for p in found for n in (p.name, p.distribution)}):
            _log.warning("EASYANIMATE_DISABLE_PLUGINS names '%s', which is not installed", name)
        self.registries = self._admit()
        self._order = [p for p in self._plugins if p.error is None]

    @property
    def plugins(self) -> tuple[PluginStatus, ...]:
        """The table behind `easyanimate plugins list`: core first, then by distribution name."""
        parked = set(self.registries.parked)
        rows = [self._plugins[0], *_sorted([*self._plugins[1:], *self._disabled])]
        return tuple(self._status(plugin, parked) for plugin in rows)

    def plan(self, plan: Any, request: Any) -> None:
        """Let every plugin edit the plan of a run.

        Raises:
            EasyAnimateError: what a plugin raised on purpose.
            PluginLoadError: a plugin's hook failed otherwise; it is named.
        """
        for plugin in self._implementers("easyanimate_plan"):
            self._call(plugin, "easyanimate_plan", plan=plan, request=request)

    def event(self, event: Event) -> None:
        """Tell every plugin. One that raises is logged once and muted from then on.

        Raises:
            PluginError: only under `EASYANIMATE_STRICT_PLUGINS`.
        """
        for plugin in self._implementers("easyanimate_event"):
            if plugin.muted:
                continue
            try:
                self._call(plugin, "easyanimate_event", event=event)
            except EasyAnimateError as error:
                if self._strict:
                    raise
                plugin.muted = True
                _log.warning("%s; its easyanimate_event is muted", error.message, exc_info=error)

    def wire(self, bus: EventBus) -> EventBus:
        """A bus that tells the subscribers of `bus` and, if any plugin listens, the plugins.

        Whoever runs something (pipeline, trainer) wires the bus that it was given; wiring twice is harmless.
        """
        if self.event in bus.subscribers or not self._implementers("easyanimate_event"):
            return bus
        return EventBus(bus.emit, self.event)

    def _admit(self) -> Registries:
        """Load all, collect slots from all, then registrations; then adopt."""
        # pluggy calls the last registered first, so registering backwards makes core's hooks run first.
        for plugin in reversed(self._plugins):
            self._try(plugin, self._register_module)
        for plugin in self._plugins:
            self._try(plugin, self._collect_slots)
        for plugin in self._plugins:
            self._try(plugin, self._collect_entries)
        while True:
            registries, failed = self._assemble()
            if failed is None:
                return registries
            # Its slots and entries are gone; what others put there is parked on the next round.
            self._manager.unregister(name=failed.key)

    def _try(self, plugin: _Plugin, step: Callable[[_Plugin], None]) -> None:
        """One step of admission; a plugin that fails is out and keeps its error."""
        if plugin.error is not None:
            return
        try:
            step(plugin)
        except EasyAnimateError as error:
            self._report(plugin, error)
            if self._manager.has_plugin(plugin.key):
                self._manager.unregister(name=plugin.key)

    def _report(self, plugin: _Plugin, error: EasyAnimateError) -> None:
        if self._strict or plugin.distribution == CORE:
            raise error
        plugin.error = error

    def _register_module(self, plugin: _Plugin) -> None:
        try:
            module = plugin.load()
            hash(module)  # pluggy keeps plugins in sets
            self._manager.register(module, plugin.key)
        except pluggy.PluginValidationError as error:
            raise _incompatible(plugin, str(error).splitlines()[-1]) from error
        # A plugin's module may raise anything, and a broken plugin is reported, never fatal.
        except Exception as error:
            raise PluginLoadError(f"{plugin.title} did not load: {error!r}", plugin.remedy) from error
        known = {name for name in vars(hookspecs) if name.startswith("easyanimate_")}
        callers = self._manager.get_hookcallers(module) or []
        if unknown := sorted({caller.name for caller in callers} - known):
            raise _incompatible(plugin, f"it implements '{unknown[0]}', which this version of the SDK does not have")

    def _collect_slots(self, plugin: _Plugin) -> None:
        opened = self._call(plugin, "easyanimate_slots")
        plugin.slots = tuple(slot for group in opened for slot in group)
        if strange := [slot for slot in plugin.slots if not isinstance(slot, Slot)]:
            raise _incompatible(plugin, f"easyanimate_slots gave '{strange[0]}', which is not a Slot")

    def _collect_entries(self, plugin: _Plugin) -> None:
        registrar = Registrar(plugin.distribution)
        self._call(plugin, "easyanimate_register", registrar=registrar)
        plugin.entries = registrar.entries

    def _assemble(self) -> tuple[Registries, _Plugin | None]:
        """Registries of all plugins without error, or the first that clashes with those before it."""
        registries = Registries(SIBLINGS)
        admitted = [plugin for plugin in self._plugins if plugin.error is None]
        for step in (_open_slots, _adopt_entries):
            for plugin in admitted:
                try:
                    step(registries, plugin)
                except EasyAnimateError as error:
                    self._report(plugin, error)
                    return registries, plugin
        return registries, None

    def _implementers(self, hook: str) -> list[_Plugin]:
        """Plugins that implement a hook, in the order in which pluggy calls them (tryfirst, trylast)."""
        keys = [impl.plugin_name for impl in reversed(getattr(self._manager.hook, hook).get_hookimpls())]
        by_key = {plugin.key: plugin for plugin in self._order}
        return [by_key[key] for key in keys]

    def _call(self, plugin: _Plugin, hook: str, **arguments: Any) -> list[Any]:
        """Call one plugin's implementation of a hook; the results, empty when it has none."""
        module = self._manager.get_plugin(plugin.key)
        others = [other for other in self._manager.get_plugins() if other is not module]
        try:
            results: list[Any] = self._manager.subset_hook_caller(hook, others)(**arguments)
        except EasyAnimateError:
            raise
        # As above: whatever a plugin raises becomes an error that names the plugin.
        except Exception as error:
            raise PluginLoadError(f"{plugin.title} failed in {hook}: {error!r}", plugin.remedy) from error
        return results

    def _status(self, plugin: _Plugin, parked: set[Entry[Any]]) -> PluginStatus:
        status = PluginStatus(plugin.name, plugin.distribution, plugin.version)
        if plugin in self._disabled:
            return replace(status, state="disabled", reason="named in EASYANIMATE_DISABLE_PLUGINS")
        if plugin.error is not None:
            return replace(status, state="broken", reason=str(plugin.error))
        left = tuple(entry for entry in plugin.entries if entry in parked)
        return replace(status, slots=plugin.slots, entries=plugin.entries, parked=left)


_ACTIVE: Final[ContextVar[Host | None]] = ContextVar("easyanimate_host", default=None)


@cache
def _installed_host() -> Host:
    """The process's own host, made when first needed."""
    return Host()


def active() -> Host:
    """The host in force: that of the innermost `using`, else one of all installed plugins.

    `using` is per context: a new thread starts with the installed plugins.
    """
    return _ACTIVE.get() or _installed_host()


@contextmanager
def using(host: Host) -> Iterator[Host]:
    """Make a host the active one inside the block."""
    token = _ACTIVE.set(host)
    try:
        yield host
    finally:
        _ACTIVE.reset(token)


def _core() -> _Plugin:
    return _Plugin("core", CORE, _version(CORE), lambda: importlib.import_module(_BUILTIN))


def _installed() -> list[_Plugin]:
    """Entry points, not yet loaded. `load_setuptools_entrypoints` would let one broken plugin stop all."""
    return [
        _Plugin(point.name, _normal(point.dist.name), point.dist.version, point.load)
        for point in entry_points(group=hookspecs.PROJECT)
        if point.dist is not None
    ]


def _given(plugins: Mapping[str, object]) -> list[_Plugin]:
    return [
        _Plugin(name.removeprefix("easyanimate-"), name, _version(name), partial(plugins.__getitem__, name))
        for name in plugins
    ]


def _sorted(plugins: Sequence[_Plugin]) -> list[_Plugin]:
    return sorted(plugins, key=lambda plugin: (plugin.distribution, plugin.name))


def _open_slots(registries: Registries, plugin: _Plugin) -> None:
    for slot in plugin.slots:
        registries.open(slot, plugin.distribution)


def _adopt_entries(registries: Registries, plugin: _Plugin) -> None:
    registries.adopt(plugin.entries)


def _incompatible(plugin: _Plugin, why: str) -> IncompatiblePlugin:
    return IncompatiblePlugin(f"{plugin.title} does not fit this version of the SDK: {why}", plugin.remedy)


def _is_set(env: Mapping[str, str], switch: str) -> bool:
    return env.get(switch, "").strip().casefold() not in ("", "0", "false", "no", "off")


def _normal(distribution: str) -> str:
    """The normal form of a distribution's name (packaging specification, "Name normalization")."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
