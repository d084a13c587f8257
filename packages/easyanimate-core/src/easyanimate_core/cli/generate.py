"""`easyanimate generate`: a request from flags or a job file to a video, a sidecar, and one line with its path."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from easyanimate_core.cli.documents import assign, is_document, read_document
from easyanimate_core.cli.flags import options_of, values_given
from easyanimate_core.cli.running import finished_lines, open_engine, progress_shown, run_shown
from easyanimate_core.engine.outputs import Destination
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.events import SILENT
from easyanimate_core.presets import Preset, find_preset, read_config
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import export_schema, parse

if TYPE_CHECKING:
    from easyanimate_core.engine.files import Made

__all__ = ["command", "preset_of", "read_request"]


def _print_schema(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(json.dumps(export_schema(GenerationRequest), ensure_ascii=False, indent=2))
        ctx.exit()


@options_of(GenerationRequest, skip=["prompt"])
@click.command("generate", short_help="make a video from a prompt")
@click.argument("prompt", metavar="[PROMPT | JOB.toml | JOB.json]", required=False)
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    help="File to write (.mp4, .gif, or .png for one frame), or a folder for "
    "numbered files. Default: outputs/00000001.mp4, outputs/00000002.mp4…",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file. Default: an existing file is an error.")
@click.option(
    "--sidecar/--no-sidecar",
    default=True,
    help="Write the manifest beside the video too, as PATH.json. Default: write it.",
)
@click.option(
    "--manifest/--no-manifest",
    default=True,
    help="Write the manifest into the video: the request with its seed, weights, versions, timings. "
    "Without it, nothing is told, beside the video neither. Default: write it.",
)
@click.option(
    "--snapshot-every",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Keep the state of the run after this many steps, to go on from. Default: every 5 seconds.",
)
@click.option("--keep-latents", is_flag=True, help="Keep PATH.latents.safetensors, for easyanimate decode.")
@click.option(
    "--set",
    "settings",
    metavar="PATH=VALUE",
    multiple=True,
    help="Any setting of the request, also inside "
    "components: --set sampler.shift=3. VALUE is JSON, else text. May be repeated.",
)
@click.option("--device", metavar="DEVICE", help="Where to compute: cpu, cuda, cuda:1, mps. Default: the best at hand.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Number format of the computation. Default: as the weights and the device suggest.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything that can be checked without the weights, print the complete request as JSON, and stop.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the path and the manifest of each video instead of its path alone, one JSON object a line.",
)
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of a job file and stop.",
)
def command(
    prompt: str | None,
    output: str | None,
    overwrite: bool,
    sidecar: bool,
    manifest: bool,
    keep_latents: bool,
    snapshot_every: int | None,
    settings: tuple[str, ...],
    device: str | None,
    dtype: str | None,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Make a video from a prompt, or from a job file that holds the settings below.

    A sidecar written by an earlier run is a job file too. Flags override the file, --set overrides both.
    Ctrl-C stops at the next step and leaves no partial file; a second one stops at once. What was computed is kept:
    easyanimate jobs resume goes on.
    """
    asked = read_request(prompt, flags, settings)
    request = preset_of(asked, told=dry_run).complete(asked)
    Destination.for_request(request, output, overwrite=overwrite).check()
    if dry_run:
        click.echo(_pretty(request.model_dump(mode="json")))
        return
    snapshots: dict[str, Any] = {}
    if snapshot_every is not None:
        snapshots = {"snapshot_every": snapshot_every, "snapshot_seconds": 0}
    with open_engine() as engine:
        job = engine.submit(
            request,
            output=output,
            overwrite=overwrite,
            sidecar=sidecar and manifest,
            manifest=manifest,
            keep_latents=keep_latents,
            **snapshots,
            device=device,
            dtype=dtype,
        )
        made = run_shown(engine, job)
    if sys.stderr.isatty():
        click.echo(_summary(made), err=True)
    for line in finished_lines(made, as_json=as_json):
        click.echo(line)


def preset_of(asked: GenerationRequest, *, told: bool = True) -> Preset:
    """The model of a request, with the settings of the original's config that the request may name.

    Args:
        asked: the request.
        told: say on the terminal what of the config is left out; a run says so itself.

    Raises:
        ConfigError: there is no such model, or the config is not of its generation.
        CheckpointNotFound: there is no such config.
    """
    preset = find_preset(asked.model)
    if asked.config is None:
        return preset
    with progress_shown() as (events, _):
        return read_config(asked.config, events if told else SILENT).applied(preset)


def read_request(prompt: str | None, flags: dict[str, Any], settings: tuple[str, ...]) -> GenerationRequest:
    """The request that a prompt or job file, flags and `--set` write together.

    Args:
        prompt: the prompt, or the path of a job file.
        flags: click's parameters by name.
        settings: `PATH=VALUE`, above all others.

    Raises:
        InvalidRequest: it is not valid, or there is no prompt.
    """
    document: dict[str, Any] = {}
    if prompt is not None and is_document(prompt):
        document = read_document(prompt)
        if "manifest" in document:  # written by us: the request is one of its parts
            document = document.get("request", {})
    elif prompt is not None:
        document = {"prompt": prompt}
    document = {**document, **values_given(GenerationRequest, flags)}
    if document.get("sampler") is None and any(setting.startswith("sampler.") for setting in settings):
        # An option of the sampler that the model uses anyway: nobody should have to name it first.
        document["sampler"] = find_preset(
            document.get("model", GenerationRequest.model_fields["model"].default)
        ).defaults.sampler
    document = assign(document, settings)
    if "prompt" not in document:
        raise InvalidRequest(
            "there is no prompt", 'Say what to show: easyanimate generate "a red circle moving right".'
        )
    return parse(GenerationRequest, document, InvalidRequest)


def _summary(made: Sequence[Made]) -> str:
    first = made[0].manifest
    if first is None:
        return f"{len(made)} files"
    video, seconds = first.video, first.seconds["total"]
    size = f"{video.frames} frames of {video.height}x{video.width} px at {video.fps:g} frames/s"
    return f"{size}, seed {first.seeds[0]}, in {seconds:.1f} s"


def _pretty(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)
