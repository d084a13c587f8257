"""`easyanimate plugins`: what is installed, what it adds, and why something is not there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.errors import UnknownComponent
from easyanimate_core.plugins import PluginStatus, active
from easyanimate_core.validation import did_you_mean

__all__ = ["command", "plugin_as_json"]


@click.group("plugins", short_help="list plugins and what they add")
def command() -> None:
    """List plugins, or show what one adds. A plugin that did not load is listed with the reason."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print all plugins and their components as JSON.")
def _list(as_json: bool) -> None:
    """One line per plugin: name, distribution, state, how many components."""
    plugins = active().plugins
    if as_json:
        print_json([plugin_as_json(plugin) for plugin in plugins])
        return
    print_table(
        ("NAME", "DISTRIBUTION", "VERSION", "STATE", "COMPONENTS", "REASON"),
        [
            (p.name, p.distribution, p.version, p.state, str(len(p.entries)), " ".join(p.reason.split()))
            for p in plugins
        ],
    )


@command.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the plugin and its components as JSON.")
def _info(name: str, as_json: bool) -> None:
    """What one plugin registers. NAME is its name or its distribution's."""
    plugin = _find(name)
    if as_json:
        print_json(plugin_as_json(plugin))
        return
    click.echo(f"{click.style(plugin.name, bold=True)} from {plugin.distribution} {plugin.version}: {plugin.state}")
    if plugin.reason:
        click.echo(plugin.reason)
    for slot in plugin.slots:
        click.echo(f"opens '{slot.name}': {slot.summary}")
    if plugin.entries:
        click.echo()
        rows = [(e.slot, e.name, "parked" if e in plugin.parked else "", e.summary) for e in plugin.entries]
        print_table(("SLOT", "NAME", "", "SUMMARY"), rows)


def plugin_as_json(plugin: PluginStatus) -> dict[str, Any]:
    """A plugin as a JSON object: its state, its slots, its components."""
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "state": plugin.state,
        "reason": plugin.reason,
        "slots": [slot.name for slot in plugin.slots],
        "components": [
            {**asdict(entry), "tags": sorted(entry.tags), "parked": entry in plugin.parked} for entry in plugin.entries
        ],
    }


def _find(name: str) -> PluginStatus:
    plugins = active().plugins
    for plugin in plugins:
        if name.casefold() in (plugin.name.casefold(), plugin.distribution.casefold()):
            return plugin
    names = [plugin.name for plugin in plugins]
    hint = did_you_mean(name, names) or f"Installed: {', '.join(names)}."
    raise UnknownComponent(f"no plugin is called '{name}'", hint)
