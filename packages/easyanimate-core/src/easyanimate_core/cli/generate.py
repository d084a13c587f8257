"""`easyanimate generate`: a request from flags or a job file to a video, a sidecar, and one line with its path."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from easyanimate_core.cli.documents import assign, is_document, read_document
from easyanimate_core.cli.flags import options_of, values_given
from easyanimate_core.cli.interrupt import cancel_on_interrupt
from easyanimate_core.cli.outputs import Destination, sidecar_of, write_json
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.events import CancelToken, Event, EventBus, StageFinished
from easyanimate_core.presets import find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import export_schema, parse

if TYPE_CHECKING:
    from easyanimate_core.data import Video

__all__ = ["command"]

_SIDECAR_VERSION: Final = 1
_NAMED_IN_SIDECAR: Final = ("easyanimate-core", "torch", "diffusers", "transformers", "av")


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
    help="Write PATH.json beside the video: the request with its seed, versions, timings. Default: write it.",
)
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
    help="Print the sidecar of each video instead of its path, one JSON object a line.",
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
    settings: tuple[str, ...],
    device: str | None,
    dtype: str | None,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Make a video from a prompt, or from a job file that holds the settings below.

    A sidecar written by an earlier run is a job file too. Flags override the file, --set overrides both.
    Ctrl-C stops at the next step and leaves no partial file; a second one stops at once.
    """
    asked = _read_request(prompt, flags, settings)
    preset = find_preset(asked.model)
    request = preset.complete(asked)
    frames = preset.limits.fit_frames(request.frames or preset.defaults.frames)
    destination = Destination.of(output, count=request.batch, frames=frames, overwrite=overwrite)
    destination.check()
    if dry_run:
        click.echo(_pretty(request.model_dump(mode="json")))
        return
    made = _run(request, destination, sidecar=sidecar, device=device, dtype=dtype)
    if sys.stderr.isatty():
        click.echo(_summary(made), err=True)
    for item in made:
        click.echo(json.dumps(item, ensure_ascii=False) if as_json else item["file"])


def _read_request(prompt: str | None, flags: dict[str, Any], settings: tuple[str, ...]) -> GenerationRequest:
    document: dict[str, Any] = {}
    if prompt is not None and is_document(prompt):
        document = read_document(prompt)
        if "sidecar" in document:  # written by us: the request is one of its parts
            document = document.get("request", {})
    elif prompt is not None:
        document = {"prompt": prompt}
    document = assign({**document, **values_given(GenerationRequest, flags)}, settings)
    if "prompt" not in document:
        raise InvalidRequest(
            "there is no prompt", 'Say what to show: easyanimate generate "a red circle moving right".'
        )
    return parse(GenerationRequest, document, InvalidRequest)


def _run(
    request: GenerationRequest, destination: Destination, *, sidecar: bool, device: str | None, dtype: str | None
) -> list[dict[str, Any]]:
    """Load, generate, write; returns one sidecar document per video."""
    with _watched() as watch:
        with watch.events.span("start"):  # importing torch and transformers takes seconds
            import easyanimate_core

            pipe = easyanimate_core.load(
                request.model,
                weights=request.weights,
                offload=request.offload,
                storage=request.storage,
                device=device,
                dtype=dtype,
            )
        watch.cancel.check()
        video = pipe(request, events=watch.events, cancel=watch.cancel)
        watch.cancel.check()
        made = []
        for index, seed in enumerate(request.sample_seeds()):
            sample = replace(
                video,
                frames=video.frames[index : index + 1],
                notes={**video.notes, "sample": {"index": index, "seed": seed}},
            )
            with watch.events.span("save"):
                path = sample.save(destination.place(index), overwrite=destination.overwrite)
            document = _document(request, sample, path, watch)
            if sidecar:
                write_json(sidecar_of(path), document)
            made.append(document)
    return made


@dataclass(slots=True)
class _Watch:
    """What the command knows about a run while it goes on."""

    events: EventBus
    cancel: CancelToken
    began: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageFinished):
            self.seconds[event.stage] = round(self.seconds.get(event.stage, 0) + event.seconds, 3)

    def elapsed(self) -> float:
        return round(time.perf_counter() - self.began, 3)


@contextmanager
def _watched() -> Iterator[_Watch]:
    """Progress on the terminal, timings for the sidecar, Ctrl-C as cancel."""
    from easyanimate_core.cli.progress import RunProgress

    with RunProgress() as progress:
        watch = _Watch(EventBus(progress), CancelToken())
        watch.events.subscribe(watch)
        with cancel_on_interrupt(watch.cancel, lambda: progress.say("stopping; Ctrl-C again stops at once")):
            yield watch


def _document(request: GenerationRequest, video: Video, path: Path, watch: _Watch) -> dict[str, Any]:
    """What the sidecar says: enough to make this video again, and how long it took."""
    _, _, frames, height, width = video.frames.shape
    said = {"request": request.model_dump(mode="json"), **video.notes}
    return {
        "sidecar": _SIDECAR_VERSION,
        "file": str(path),
        **said,
        "video": {"frames": frames, "height": height, "width": width, "fps": video.fps},
        "seconds": {**watch.seconds, "total": watch.elapsed()},
        "versions": {name: version(name) for name in _NAMED_IN_SIDECAR},
    }


def _summary(made: list[dict[str, Any]]) -> str:
    video, last = made[0]["video"], made[-1]
    size = f"{video['frames']} frames of {video['height']}x{video['width']} px at {video['fps']:g} frames/s"
    return f"{size}, seed {made[0]['sample']['seed']}, in {last['seconds']['total']:.1f} s"


def _pretty(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)
