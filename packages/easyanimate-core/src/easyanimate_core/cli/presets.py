"""`easyanimate presets`: which models there are and what they can do."""

from __future__ import annotations

import click

from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.data import Inlet
from easyanimate_core.errors import UnknownComponent
from easyanimate_core.plugins import active
from easyanimate_core.presets import Preset, all_presets, find_preset
from easyanimate_core.presets.model import Extra, Limits
from easyanimate_core.schema import export_schema
from easyanimate_core.slots import PRESETS

__all__ = ["command"]


@click.group("presets", short_help="list models and show their settings")
def command() -> None:
    """List models, show what one can do, or print the schema of a preset file."""


@command.command("list")
@click.option("--generation", metavar="NAME", help="Only this generation: v1, v2, v3, v4, v5 or v5.1. Default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print the presets, whole, as JSON.")
def _list(generation: str | None, as_json: bool) -> None:
    """One line per model: name, task, default size and length, weights on disk."""
    presets = [preset for preset in all_presets() if generation in (None, preset.generation)]
    if not presets:
        known = sorted({preset.generation for preset in all_presets()})
        raise UnknownComponent(f"there is no model of generation '{generation}'", f"Known: {', '.join(known)}.")
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
    defaults, limits, made = preset.defaults, preset.limits, preset.components
    weights = preset.bundled or preset.huggingface or preset.modelscope or "given with --weights"
    image = [made.image_encoder] if made.image_encoder else []
    return [
        ("task", preset.task),
        ("generation", preset.generation),
        ("weights", f"{weights} ({preset.disk_gb:g} GB)"),
        *((name, place) for name in ("diffusers", "url") if (place := getattr(preset, name))),
        ("languages", ", ".join(preset.languages)),
        ("default size", f"{defaults.size} px (height x width)"),
        ("default length", f"{defaults.frames} frames at {defaults.fps:g} frames/s"),
        ("default steps", f"{defaults.steps}, guidance {defaults.guidance:g}, sampler {defaults.sampler}"),
        ("sizes", f"{limits.size_min}…{limits.size_max} px a side, multiples of {limits.size_multiple}"),
        ("lengths", _lengths(limits)),
        ("samplers", ", ".join(preset.samplers)),
        ("conditions", ", ".join(_inlet(inlet) for inlet in preset.inlets) or "none besides text"),
        ("made of", ", ".join([*made.text_encoders, *image, made.denoiser, made.vae])),
        *((extra.kind, _extra(extra)) for extra in preset.extras),
        *(("example", example) for example in preset.examples),
    ]


def _lengths(limits: Limits) -> str:
    if limits.frames_max == 1:
        return "1 frame"
    steps = "" if limits.frames_step == 1 else f", in steps of {limits.frames_step} plus 1"
    return f"1…{limits.frames_max} frames{steps}"


def _inlet(inlet: Inlet) -> str:
    return f"{inlet.name} ({inlet.width})" if inlet.width else inlet.name


def _extra(extra: Extra) -> str:
    size = f" ({extra.disk_gb:g} GB)" if extra.disk_gb else ""
    return f"{extra.huggingface or extra.url}{size}: {extra.summary}"
