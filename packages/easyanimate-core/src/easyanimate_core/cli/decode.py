"""`easyanimate decode`: kept latents to a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from easyanimate_core.cli.running import finished_lines, open_engine, progress_shown

__all__ = ["command"]


@click.command("decode", short_help="make a video from kept latents")
@click.argument("latents", type=click.Path(path_type=Path))
@click.option("--output", "-o", metavar="PATH", help="File or folder, as of generate. Default: outputs/00000001.mp4…")
@click.option("--overwrite", is_flag=True, help="Replace an existing file. Default: an existing file is an error.")
@click.option("--weights", metavar="PATH", help="Where the weights are now. Default: where they were.")
@click.option("--scale", type=click.IntRange(1, 16), help="Enlarge frames by this whole factor. Default: as ordered.")
@click.option("--fps", type=float, metavar="FRAMES/S", help="Frames per second. Default: as ordered.")
@click.option("--tiled", is_flag=True, help="Decode large frames tile by tile: slower, in less memory.")
@click.option("--sidecar/--no-sidecar", default=True, help="Write PATH.json too. Default: write it.")
@click.option("--manifest/--no-manifest", default=True, help="Write the manifest into the video. Default: write it.")
@click.option("--device", metavar="DEVICE", help="Where to compute. Default: the best at hand.")
@click.option("--json", "as_json", is_flag=True, help="Print path and manifest, one JSON object a line.")
def command(
    latents: Path,
    output: str | None,
    overwrite: bool,
    weights: str | None,
    scale: int | None,
    fps: float | None,
    tiled: bool,
    sidecar: bool,
    manifest: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Make a video from LATENTS: a file that --keep-latents wrote, or that an unfinished job keeps.

    Only the VAE is loaded, and frames go to the file chunk by chunk. (easyanimate jobs show tells where a job's are.)
    """
    given: dict[str, Any] = {"weights": weights, "scale": scale, "fps": fps}
    changes = {name: value for name, value in given.items() if value is not None}
    with open_engine() as engine, progress_shown() as (events, cancel):
        with events.span("start"):
            from easyanimate_core.engine.decode import decode_latents
        made = decode_latents(
            latents,
            engine.store,
            output=output,
            overwrite=overwrite,
            manifest=manifest,
            sidecar=sidecar,
            tiled=tiled,
            device=device,
            changes=changes,
            events=events,
            cancel=cancel,
        )
    for line in finished_lines(made, as_json=as_json):
        click.echo(line)
