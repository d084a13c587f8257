"""`easyanimate jobs`: what ran, what waits, what stopped in the middle and can go on."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from easyanimate_core.cli.running import finished_lines, open_engine, run_shown
from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.engine import JobStore

if TYPE_CHECKING:
    from easyanimate_core.engine import Job
    from easyanimate_core.engine.job import JobState

__all__ = ["command"]

_SHOWN: Final = 20
_WIDE: Final = 60
_DONE: Final[tuple[JobState, ...]] = ("done",)
_STOPPED: Final[tuple[JobState, ...]] = ("interrupted", "cancelled", "failed")


@click.group("jobs", short_help="list, resume, cancel and forget runs")
def command() -> None:
    """List, resume, cancel and forget runs.

    Every run is a job with a number. One that was killed is 'interrupted'; it, and those that were cancelled or
    failed, go on where they stopped. EASYANIMATE_HOME says where jobs are kept.
    """


@command.command("list")
@click.option("--all", "everything", is_flag=True, help=f"All jobs. Default: the last {_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="Print whole jobs as JSON.")
def _list(everything: bool, as_json: bool) -> None:
    """One line per job: number, state, how far it is, prompt."""
    jobs = JobStore().list(newest=None if everything else _SHOWN)
    if as_json:
        print_json([job.model_dump(mode="json") for job in jobs])
        return
    rows = [(str(job.id), job.state, _local(job.created), _far(job), _short(job.prompt)) for job in jobs]
    print_table(("JOB", "STATE", "ORDERED", "PROGRESS", "PROMPT"), rows)


@command.command("show")
@click.argument("number", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print the whole job as JSON.")
def _show(number: int, as_json: bool) -> None:
    """All that is known about one job."""
    store = JobStore()
    job = store.get(number)
    if as_json:
        print_json(job.model_dump(mode="json"))
        return
    latents = store.job_folder(number) / "latents.safetensors"
    facts = [
        ("state", job.state),
        ("prompt", job.prompt),
        ("model", str(job.spec.request.get("model"))),
        ("seed", str(job.spec.request.get("seed"))),
        ("ordered", _local(job.created)),
        ("started", _local(job.started)),
        ("ended", _local(job.finished)),
        ("starts", str(job.attempts)),
        ("progress", _far(job)),
        *([("latents", str(latents))] if latents.exists() else []),
        *([("error", f"{job.error.message} {job.error.hint}".rstrip())] if job.error else []),
        *(("output", path) for path in job.outputs),
    ]
    print_table(("JOB", str(job.id)), facts)
    if job.state in (*_STOPPED, "queued"):
        click.echo(f"\nRun it: easyanimate jobs resume {job.id}")


@command.command("resume")
@click.argument("numbers", type=int, nargs=-1, metavar="[NUMBER]…")
@click.option("--json", "as_json", is_flag=True, help="Print paths and manifests, one JSON object a line.")
def _resume(numbers: tuple[int, ...], as_json: bool) -> None:
    """Go on with jobs that were interrupted, cancelled or failed. Default: all that were interrupted."""
    with open_engine() as engine:
        for number in numbers or [job.id for job in engine.store.list(states=["interrupted"])]:
            for line in finished_lines(run_shown(engine, engine.store.get(number)), as_json=as_json):
                click.echo(line)


@command.command("cancel")
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="NUMBER…")
def _cancel(numbers: tuple[int, ...]) -> None:
    """Stop jobs at their next step, block or tile, also those of other processes. What they computed is kept."""
    store = JobStore()
    for number in numbers:
        store.cancel(number)


@command.command("rm")
@click.argument("numbers", type=int, nargs=-1, metavar="[NUMBER]…")
@click.option("--done", is_flag=True, help="All that are done.")
@click.option("--stopped", is_flag=True, help="All that were interrupted or cancelled, or failed, with what they kept.")
def _rm(numbers: tuple[int, ...], done: bool, stopped: bool) -> None:
    """Forget jobs, and what they kept to go on. Videos stay."""
    store = JobStore()
    states: list[JobState] = [*_DONE] if done else []
    states += _STOPPED if stopped else ()
    if not numbers and not states:
        raise click.UsageError("name jobs, or use --done or --stopped")
    for number in dict.fromkeys([*numbers, *(job.id for job in (store.list(states=states) if states else ()))]):
        store.remove(number)


def _far(job: Job) -> str:
    if job.progress is None:
        return ""
    stage = job.progress.stage.replace("_", " ")
    return f"{stage} {job.progress.done}/{job.progress.total}" if job.progress.total else stage


def _local(moment: str | None) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDE else f"{line[: _WIDE - 1]}…"
