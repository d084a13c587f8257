"""`easyanimate batch`: many videos from one file; run again, it makes what is not made yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyanimate_core.cli.running import finished_lines, open_engine, run_shown
from easyanimate_core.engine.batch import BatchEntry, Combine, read_batch
from easyanimate_core.errors import Cancelled, EasyAnimateError, ExecutionError, InvalidRequest

if TYPE_CHECKING:
    from easyanimate_core.engine import Job
    from easyanimate_core.request import GenerationRequest

__all__ = ["command"]


@click.command("batch", short_help="make many videos from a file of requests")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", metavar="FOLDER", default="outputs/", help="Numbered files go here. Default: outputs/.")
@click.option(
    "--combine",
    type=click.Choice(["zip", "product"]),
    help="How lists of values become videos: the first with the first, or each with each; of a .csv, its columns. "
    "Default: as the file says.",
)
@click.option("--sidecar/--no-sidecar", default=True, help="Write the manifest beside each video. Default: write it.")
@click.option("--manifest/--no-manifest", default=True, help="Write the manifest into each video. Default: write it.")
@click.option("--device", metavar="DEVICE", help="Where to compute. Default: the best at hand.")
@click.option("--dry-run", is_flag=True, help="Check the file, say what would be done, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print path and manifest of each video, one JSON object a line.")
def command(
    file: Path,
    output: str,
    combine: Combine | None,
    sidecar: bool,
    manifest: bool,
    device: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the videos of FILE: .jsonl, .csv or .toml, one request per entry, or one per combination of its lists.

    A wrong entry is reported, and the others are done; the status is then 4. Run it again after a crash, Ctrl-C or a
    correction: what is done already is left out, and what was begun goes on.
    """
    folder = output if output.endswith(("/", "\\")) else f"{output}/"
    entries = read_batch(file, combine)
    name = f"{file.resolve()} → {Path(folder).resolve()}"
    order = {"sidecar": sidecar and manifest, "manifest": manifest, "device": device}
    wrong = 0
    with open_engine() as engine:
        known = {job.key: job for job in engine.store.list(batch=name)}
        for entry in entries:
            job = known.get(entry.key)
            if job is not None and _finished(job):
                continue
            try:
                request = _checked(entry)
                if dry_run:
                    click.echo(f"{entry.place}: {' | '.join(request.prompts)}")
                    continue
                if job is None or job.state == "done":
                    output_of = entry.output or folder
                    job = engine.submit(request, output=output_of, batch=name, key=entry.key, **order)
                for line in finished_lines(run_shown(engine, job), as_json=as_json):
                    click.echo(line)
            except Cancelled as error:
                raise Cancelled(error.message, "Go on: run the same command again.") from error
            except EasyAnimateError as error:
                wrong += 1
                click.echo(f"{entry.place}: {error.message}{f'. {error.hint}' if error.hint else ''}", err=True)
    if wrong:
        raise ExecutionError(f"{wrong} of {len(entries)} entries failed", "Correct them and run it again.")


def _checked(entry: BatchEntry) -> GenerationRequest:
    if entry.request is None:
        raise entry.error or InvalidRequest("the entry is empty")
    return entry.request


def _finished(job: Job) -> bool:
    """Whether a job is done and its files are still there."""
    return job.state == "done" and all(Path(path).exists() for path in job.outputs)
