"""`easyanimate replay`: make a video again, and compare."""

from __future__ import annotations

from pathlib import Path

import click

from easyanimate_core.cli.running import open_engine, progress_shown
from easyanimate_core.cli.tables import print_json
from easyanimate_core.engine import read_manifest
from easyanimate_core.errors import ExecutionError

__all__ = ["command"]


@click.command("replay", short_help="make a video again and compare its frames")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", metavar="PATH", help="Keep the new video. Default: its frames are only compared.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file. Default: an existing file is an error.")
@click.option("--device", metavar="DEVICE", help="Where to compute. Default: where the original was.")
@click.option("--force", is_flag=True, help="Go on with weights or inputs that are missing or changed.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(file: Path, output: str | None, overwrite: bool, device: str | None, force: bool, as_json: bool) -> None:
    """Make FILE again from its manifest, and compare every pixel with what it was before encoding.

    On the same kind of processor, with the same versions, a video made on a CPU comes out bit by bit the same. If
    anything differs, the status is 4 and the message says how this machine differs.
    """
    with open_engine() as engine, progress_shown() as (events, cancel):
        with events.span("start"):
            from easyanimate_core.engine.replay import replay
        result = replay(
            read_manifest(file),
            engine,
            output=output,
            overwrite=overwrite,
            device=device,
            force=force,
            events=events,
            cancel=cancel,
        )
    path = None if result.path is None else str(result.path)
    if as_json:
        print_json({"identical": result.identical, "file": path, "differences": list(result.differences)})
    elif result.identical:
        click.echo(path or f"identical: every frame of '{file}' came out the same")
    if not result.identical:
        raise ExecutionError(
            f"the frames differ from those of '{file}'",
            "; ".join(result.differences) or "Nothing that is recorded differs; the device may not be deterministic.",
        )
