"""`easyanimate plan`: what a request would take on some device, without weights and without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from easyanimate_core.cli.flags import options_of
from easyanimate_core.cli.generate import preset_of, read_request
from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.request import GenerationRequest
from easyanimate_core.sizes import written_bytes

if TYPE_CHECKING:
    from easyanimate_core.engine.planner import Interval, Prediction, RunPlan

__all__ = ["command"]


@options_of(GenerationRequest, skip=["prompt"])
@click.command("plan", short_help="predict memory and time of a request")
@click.argument("prompt", metavar="[PROMPT | JOB.toml | JOB.json]", required=False, default="any")
@click.option(
    "--device",
    default="auto",
    metavar="DEVICE",
    help="h100, a100, a10, rtx4090… (a wrong name lists them), a size such as 24GB, cpu, or auto for the one at hand. "
    "Default: auto.",
)
@click.option(
    "--set", "settings", metavar="PATH=VALUE", multiple=True, help="Any setting of the request, as for generate."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON: bytes and seconds, [low, high].")
def command(prompt: str, device: str, settings: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Predict the memory, disk and time that a request takes, and how it is best run.

    Nothing is downloaded or read but configs: real modules are counted without weights. Memory is exact within what an
    allocator adds; times are intervals, from estimates of the device's speed, or on this machine from past runs of the
    model. What computes other numbers (float8) is shown, and never chosen unless asked for.
    """
    asked = read_request(prompt, flags, settings)
    preset = preset_of(asked)
    request = preset.complete(asked)
    from easyanimate_core.engine.planner import Past, find_device, plan_run

    plan = plan_run(request, preset, find_device(device), past=Past())
    if as_json:
        print_json(_document(plan, request))
    else:
        _show(plan)
    plan.taken()  # nothing fits: say so, and fail


def _show(plan: RunPlan) -> None:
    looked_at = [found for found in (plan.chosen, *plan.others) if found is not None]
    rows = [_row(found, chosen=found is plan.chosen) for found in looked_at]
    print_table(("", "OFFLOAD + STORAGE", "DEVICE", "RAM", "DISK", "A STEP", "IN ALL", "NOTE"), rows)
    click.echo(f"\nTimes rest on {plan.device.rests_on}.")


def _row(found: Prediction, *, chosen: bool) -> tuple[str, ...]:
    notes = [
        *(["decoded in tiles"] if found.tiled else []),
        *(["guidance in two passes"] if found.apart else []),
        *([] if found.exact else ["not the same numbers"]),
        *([f"does not fit: {found.short}"] if found.short else []),
    ]
    return (
        "→" if chosen else "",
        found.name,
        _bytes(found.vram),
        _bytes(found.ram),
        written_bytes(found.disk) if found.disk else "–",
        _seconds(found.step),
        _seconds(found.seconds),
        "; ".join(notes),
    )


def _bytes(interval: Interval) -> str:
    return f"{written_bytes(interval.low).split()[0]}…{written_bytes(interval.high)}"


def _seconds(interval: Interval) -> str:
    digits = 0 if interval.high >= 100 else 1 if interval.high >= 10 else 2
    return f"{interval.low:.{digits}f}…{interval.high:.{digits}f} s"


def _document(plan: RunPlan, request: GenerationRequest) -> dict[str, Any]:
    device = plan.device
    return {
        "device": {
            "name": device.name,
            "memory_bytes": device.memory,
            "ram_bytes": device.host,
            "times_rest_on": device.rests_on,
        },
        "request": request.model_dump(mode="json"),
        "chosen": None if plan.chosen is None else plan.chosen.as_json(),
        "others": [found.as_json() for found in plan.others],
    }
