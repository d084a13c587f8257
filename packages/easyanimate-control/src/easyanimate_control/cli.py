"""`easyanimate control`: make, look at and convert what steers a video.

Heavy modules are imported when a command runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from easyanimate_control.options import CameraOptions
from easyanimate_control.slots import PREPROCESSORS
from easyanimate_core.cli.documents import assign
from easyanimate_core.cli.running import progress_shown
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.media.paths import check_writable
from easyanimate_core.plugins import active
from easyanimate_core.request import Size
from easyanimate_core.schema import parse
from easyanimate_core.validation import invalid

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_control.preview.camera import CameraPreview
    from easyanimate_control.preview.tracks import TracksPreview

__all__ = ["command"]

_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an existing file.")


@click.group("control", short_help="make and look at camera paths, trajectories and control videos")
def command() -> None:
    """Make, look at and convert what steers a video: camera paths, trajectories, control videos."""


@command.command("camera", short_help="Write a camera path from named moves.")
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--move",
    required=True,
    metavar="MOVES",
    help="Named moves: + does two at once, a comma one after the other, *0.5 half as fast, as in "
    "'pan-left + zoom-in*0.5, roll-cw'. Known: static, pan-left, pan-right, pan-up, pan-down, zoom-in, zoom-out, "
    "roll-ccw, roll-cw.",
)
@click.option("--frames", type=click.IntRange(1, 4096), default=49, show_default=True, help="Poses, one for a frame.")
@click.option("--speed", type=float, help="Factor on all moves; below 0 the other way. Default: 1.")
@click.option("--focal", type=float, help="Focal length, as a share of the width of a 16:9 picture. Default: 0.532.")
@_OVERWRITE
def _camera(output: Path, move: str, frames: int, speed: float | None, focal: float | None, overwrite: bool) -> None:
    """Write a camera path from named moves into OUTPUT: .txt as RealEstate10K and CameraCtrl have it, or .json."""
    from easyanimate_control.camera.conditioner import camera_path
    from easyanimate_control.camera.files import camera_json, camera_text

    given = {name: value for name, value in (("speed", speed), ("focal", focal)) if value is not None}
    options = parse(CameraOptions, {"move": move, **given}, of="the camera path")
    path = camera_path(options, frames=frames, fps=None)
    texts = {".txt": lambda: camera_text(path, title=move), ".json": lambda: camera_json(path)}
    _write_text(output, texts, overwrite)


@command.command("trajectory", short_help="Write paths of moving things, or their control video.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--size", metavar="HEIGHTxWIDTH", default="384x672", show_default=True, help="Picture that points are on."
)
@click.option("--frames", type=click.IntRange(1, 4096), default=49, show_default=True, help="Length of a video.")
@click.option("--fps", type=float, default=8, show_default=True, help="Frames per second of a video.")
@_OVERWRITE
def _trajectory(paths: tuple[str, ...], output: Path, size: str, frames: int, fps: float, overwrite: bool) -> None:
    """Write paths of moving things into OUTPUT: .json, or the control video itself as .mp4, .gif or .png.

    Each PATH is points X,Y in pixels, with spaces between them: "60,300 200,80 640,60". They are spread evenly over
    the clip. One point stands still.
    """
    from easyanimate_control.trajectory.conditioner import trajectory_video
    from easyanimate_control.trajectory.tracks import parse_tracks, tracks_json

    height, width = _size(size)
    given = parse_tracks([_points(path) for path in paths])
    tracks = replace(given, height=height, width=width).checked(height, width)
    if output.suffix.lower() == ".json":
        _write_text(output, {".json": lambda: tracks_json(tracks)}, overwrite)
        return
    check_writable(output, overwrite)
    _write_video(output, trajectory_video(tracks, frames, height, width), fps, overwrite)


@command.command("preview", short_help="Draw a camera path or trajectory.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Default: FILE with .png in the place of its suffix."
)
@click.option(
    "--frames", type=click.IntRange(1, 4096), default=49, show_default=True, help="Over which paths are spread."
)
@click.option("--fps", type=float, default=8, show_default=True, help="Frames per second of a video.")
@click.option("--size", metavar="HEIGHTxWIDTH", help="Picture that points are on, for a file that does not say.")
@_OVERWRITE
def _preview(file: Path, output: Path | None, frames: int, fps: float, size: str | None, overwrite: bool) -> None:
    """Draw a camera path or trajectory, so that it can be checked before a video is made.

    A .png shows all of it at once, an .mp4 or .gif frame by frame.
    """
    from easyanimate_core.media.write import VideoWriter

    output = output or file.with_suffix(".png")
    check_writable(output, overwrite)
    preview, count = _drawn(file, frames, size)
    with VideoWriter(output, fps=fps, overwrite=overwrite) as writer:
        if output.suffix.lower() == ".png":
            writer.write(preview.sheet()[None])
        else:
            for frame in range(count):
                writer.write(preview.frame(frame)[None])
    click.echo(str(writer.path))


@command.command("preprocess", short_help="Make a control video of any video.")
@click.argument("name", metavar="NAME")
@click.argument("source", metavar="VIDEO", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Its options, as --set low=50. Repeatable."
)
@click.option("--fps", type=click.FloatRange(0.1, 1000), help="Thin the video out to this rate. Default: as it is.")
@click.option("--frames", type=click.IntRange(1), help="At most this many frames. Default: all.")
@_OVERWRITE
def _preprocess(
    name: str,
    source: Path,
    output: Path,
    settings: tuple[str, ...],
    fps: float | None,
    frames: int | None,
    overwrite: bool,
) -> None:
    """Make a control video of VIDEO by the preprocessor NAME: canny, depth, lines, pose, or what plugins add.

    Depth and pose need weights; their options say which (easyanimate control options NAME).
    """
    registry = active().registries[PREPROCESSORS]
    given = assign({}, settings)
    registry.validate(name, given)
    check_writable(output, overwrite)
    from easyanimate_control.preprocess.run import preprocess_file

    with progress_shown() as (events, cancel):
        with events.span("load"):
            preprocessor = registry.create(name, given)
        made = preprocess_file(
            source, output, preprocessor, fps=fps, frames=frames, overwrite=overwrite, events=events, cancel=cancel
        )
    click.echo(str(made))


@command.command("options", short_help="List the installed preprocessors, or one's options.")
@click.argument("name", required=False)
def _options(name: str | None) -> None:
    """List the installed preprocessors, or the options of one."""
    from easyanimate_core.cli.tables import print_table

    registry = active().registries[PREPROCESSORS]
    if name is None:
        rows = [(entry.name, entry.owner, entry.summary) for entry in registry]
        print_table(("NAME", "FROM", "WHAT IT DOES"), rows)
        return
    model = registry.options_model(name)
    fields = {} if model is None else model.model_fields
    print_table(
        ("OPTION", "WHAT IT DOES"),
        [(option, " ".join((field.description or "").split()).replace("`", "'")) for option, field in fields.items()],
    )


@command.command("overlay", short_help="Put two control videos into one.")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@_OVERWRITE
def _overlay(first: Path, second: Path, output: Path, overwrite: bool) -> None:
    """Put two videos into one: everywhere, the brighter value of both.

    OUTPUT has the size and frame rate of FIRST, and the length of the shorter one.
    """
    import torch

    from easyanimate_control.overlay import overlay
    from easyanimate_core.media.read import read_video

    (below, fps), (above, _) = read_video(first), read_video(second)
    one, two = (torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 255 for frames in (below, above))
    _write_video(output, overlay(one, two), fps, overwrite)


def _write_text(output: Path, texts: Mapping[str, Callable[[], str]], overwrite: bool) -> None:
    """Write a document, whole or not at all; the suffix decides which of the texts."""
    from easyanimate_core.media.paths import claim_partial, publish

    make = texts.get(output.suffix.lower())
    if make is None:
        raise InvalidRequest(f"cannot write '{output}'", f"Its name has to end with {' or '.join(texts)}.")
    if output.exists() and not overwrite:
        raise InvalidRequest(f"'{output}' exists already", "Pass --overwrite or choose another name.")
    partial = claim_partial(output)
    try:
        partial.write_text(make(), encoding="utf-8")
        publish(partial, output, overwrite=overwrite)
    finally:
        partial.unlink(missing_ok=True)
    click.echo(str(output))


def _write_video(output: Path, frames: Tensor, fps: float, overwrite: bool) -> None:
    """Write frames `(3, F, H, W)` in 0…1; a `.png` shows the last one."""
    from easyanimate_core.media.write import VideoWriter

    pixels = (frames.permute(1, 2, 3, 0) * 255).round().byte().numpy()
    if output.suffix.lower() == ".png":
        pixels = pixels[-1:]
    with VideoWriter(output, fps=fps, overwrite=overwrite) as writer:
        writer.write(pixels)
    click.echo(str(writer.path))


def _drawn(file: Path, frames: int, size: str | None) -> tuple[CameraPreview | TracksPreview, int]:
    """What draws a file, and how many frames it has. JSON with long rows is a camera path, all other a trajectory."""
    from easyanimate_control.camera.files import read_camera
    from easyanimate_control.preview.camera import CameraPreview
    from easyanimate_control.preview.tracks import TracksPreview
    from easyanimate_control.trajectory.tracks import read_tracks

    if file.suffix.lower() != ".json" or _has_poses(file):
        path = read_camera(file)
        return CameraPreview(path, file.name), len(path)
    tracks = read_tracks(file)
    if size is not None:
        height, width = _size(size)
        tracks = replace(tracks, height=height, width=width)
    if tracks.height is None or tracks.width is None:
        raise InvalidRequest(f"'{file}' does not say on what picture its points are", "Say it: --size 384x672.")
    return TracksPreview(tracks, frames, file.name), frames


def _has_poses(file: Path) -> bool:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # whoever reads it says what is wrong
    first = rows[0] if isinstance(rows, list) and rows else None
    return isinstance(first, list) and len(first) > 2 and isinstance(first[0], int | float)


def _size(text: str) -> tuple[int, int]:
    try:
        size = Size.model_validate(text)
    except ValidationError as error:
        raise invalid(error, InvalidRequest, of="--size") from error
    return size.height, size.width


def _points(text: str) -> list[list[float]]:
    """`"60,300 200,80"` as pairs of numbers."""
    points = []
    for word in text.split():
        x, _, y = word.partition(",")
        try:
            points.append([float(x), float(y)])
        except ValueError as error:
            hint = 'Write a path as "60,300 200,80": x,y in pixels, with spaces between points.'
            raise InvalidRequest(f"'{word}' is no point", hint) from error
    return points
