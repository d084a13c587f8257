"""The four hooks. Everything else that a plugin can add (commands, presets, formats, samplers, panels) is a
registry entry.

Mark an implementation with `@hookimpl`. It may take fewer arguments than the hook offers; new arguments can
therefore be added without breaking anyone. Core's hooks run first, then plugins by distribution name: the
same order on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from easyanimate_core.events import Event
    from easyanimate_core.registry import Registrar, Slot

__all__ = [
    "PROJECT",
    "easyanimate_event",
    "easyanimate_plan",
    "easyanimate_register",
    "easyanimate_slots",
    "hookimpl",
]

PROJECT: Final = "easyanimate"
"""Name of the pluggy project and of the entry-point group."""

hookimpl: Final = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of a hook."""

_hookspec: Final = pluggy.HookspecMarker(PROJECT)


@_hookspec
def easyanimate_slots() -> Iterable[Slot[Any]]:  # type: ignore[empty-body]
    """Open slots, so that this plugin and others can register components of a new kind.

    Called once at discovery, for all plugins, before any of them registers: plugin order never matters.

    Returns:
        The slots. A name that another distribution has opened is an error of the later one.
    """


@_hookspec
def easyanimate_register(registrar: Registrar) -> None:
    """Register components: `registrar.add(slot, name, target, …)`.

    Called once per plugin, alone. Give import paths, and import nothing heavy: listing plugins must not
    load torch. A plugin is adopted whole or not at all; who owns an entry is the host's business.
    """


@_hookspec
def easyanimate_plan(plan: Any, request: Any) -> None:
    """Change what a run will do: insert, replace or drop stages by name.

    Called once per run, after the default plan is built and before it is checked, with the run's
    `easyanimate_core.pipeline.plan.Plan` and `easyanimate_core.request.GenerationRequest`. Return nothing;
    edit the plan: `plan.insert(stage, after="decode")`. An exception ends the run before weights load.
    """


@_hookspec
def easyanimate_event(event: Event) -> None:
    """Hear what happens.

    Called for every event of every run, in the thread that runs it, so be quick. The first exception is
    logged and mutes this plugin's hook until the process ends; the run goes on.
    """
