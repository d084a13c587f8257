"""`easyanimate presets`: which models there are and what they can do."""

from __future__ import annotations

import click

from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.plugins import active
from easyanimate_core.presets import Preset, all_presets, find_preset
from easyanimate_core.schema import export_schema
from easyanimate_core.slots import PRESETS

__all__ = ["command"]


@click.group("presets", short_help="list models and show their settings")
def command() -> None:
    """List models, show what one can do, or print the schema of a preset file."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print all presets, whole, as JSON.")
def _list(as_json: bool) -> None:
    """One line per model: name, task, default size and length, weights on disk."""
    presets = all_presets()
    if as_json:
        print_json([preset.model_dump(mode="json") for preset in presets])
        return
    print_table(
        ("NAME", "TASK", "SIZE", "FRAMES", "FPS", "DISK", "TITLE"),
        [
            (
                preset.name,
                preset.task,
                str(preset.defaults.size),
                str(preset.defaults.frames),
                f"{preset.defaults.fps:g}",
                "bundled" if preset.bundled else f"{preset.disk_gb:g} GB",
                preset.title,
            )
            for preset in presets
        ],
    )


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the preset, whole, as JSON.")
def _show(name: str, as_json: bool) -> None:
    """What one model is made of, its defaults and its limits. NAME may be the released folder's name."""
    preset = find_preset(name)
    if as_json:
        print_json(preset.model_dump(mode="json"))
        return
    entry = active().registries[PRESETS].get(name)
    click.echo(f"{click.style(preset.name, bold=True)}: {preset.title}\n")
    print_table(("SETTING", "VALUE"), [*_facts(preset), ("registered by", entry.owner)])


@command.command("schema")
def _schema() -> None:
    """JSON Schema of a preset file. (That of a job file: easyanimate generate --schema.)"""
    print_json(export_schema(Preset))


def _facts(preset: Preset) -> list[tuple[str, str]]:
    defaults, limits = preset.defaults, preset.limits
    weights = preset.bundled or preset.huggingface or preset.modelscope or "given with --weights"
    return [
        ("task", preset.task),
        ("generation", preset.generation),
        ("weights", f"{weights} ({preset.disk_gb:g} GB)"),
        ("languages", ", ".join(preset.languages)),
        ("default size", f"{defaults.size} px (height x width)"),
        ("default length", f"{defaults.frames} frames at {defaults.fps:g} frames/s"),
        ("default steps", f"{defaults.steps}, guidance {defaults.guidance:g}, sampler {defaults.sampler}"),
        ("sizes", f"{limits.size_min}…{limits.size_max} px a side, multiples of {limits.size_multiple}"),
        ("lengths", f"1…{limits.frames_max} frames, in steps of {limits.frames_step} plus 1"),
        ("samplers", ", ".join(preset.samplers)),
        ("conditions", ", ".join(f"{inlet.name} ({inlet.width})" for inlet in preset.inlets) or "none besides text"),
        ("made of", ", ".join([*preset.components.text_encoders, preset.components.denoiser, preset.components.vae])),
        *(("example", example) for example in preset.examples),
    ]
