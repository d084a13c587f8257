"""Options of the conditioners. Pydantic only; neither torch nor numpy."""

from __future__ import annotations

import json
from os import PathLike, fspath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from easyanimate_control.camera.moves import parse_moves
from easyanimate_core.conditioning.options import Clip, Picture
from easyanimate_core.request import Size
from easyanimate_core.schema import Hint, Model

__all__ = ["CameraGivenOptions", "CameraOptions", "ControlVideoOptions", "ReferenceOptions", "TrajectoryOptions"]


class ControlVideoOptions(Model):
    """A video of edges, depths, bodies, lines or marks that the result follows frame by frame."""

    video: Annotated[Clip, Hint(media="video", flag="control-video")]
    """Control video: what `easyanimate control preprocess` makes, or any other of the same kind; its frames are thinned
    out to the request's frames per second. When it is shorter than the result, the result is as short."""

    overlay: Annotated[Clip | None, Hint(media="video")] = None
    """Second control video; of both, the brighter value counts everywhere. Default: none."""


class ReferenceOptions(Model):
    """A picture that says what things look like."""

    image: Annotated[Picture, Hint(media="image", flag="reference")]
    """Picture whose content and style the result takes up; it is stretched to the result's size."""


def _path(path: object) -> object:
    return fspath(path) if isinstance(path, PathLike) else path


def _moves(text: object) -> object:
    if isinstance(text, str):
        parse_moves(text)  # raises ValueError, with what is wrong
    return text


class CameraOptions(Model):
    """A path that the camera follows: a file, named moves, or poses."""

    path: Annotated[str | None, BeforeValidator(_path), Hint(media="file", flag="camera")] = None
    """Camera file: text of RealEstate10K or CameraCtrl (a title, then lines of 19 numbers), or JSON, which may also be
    given itself. Default: none."""

    move: Annotated[str | None, BeforeValidator(_moves), Hint(flag="camera-move")] = None
    """Named moves: `+` does two at once, a comma one after the other, `*0.5` half as fast, as in
    `pan-left + zoom-in*0.5, roll-cw`. Known: static, pan-left, pan-right, pan-up, pan-down, zoom-in, zoom-out,
    roll-ccw, roll-cw. Default: none."""

    poses: Annotated[tuple[tuple[float, ...], ...], Hint(advanced=True)] = ()
    """Rows of 19 numbers, as in a file. Default: none."""

    speed: Annotated[float, Field(ge=-100, le=100), Hint(flag="camera-speed")] = 1.0
    """Factor on named moves, −100…100; at 1 a move travels 1.5, or turns by 60°. Default: 1."""

    focal: Annotated[float, Field(gt=0, le=100), Hint(advanced=True)] = 0.532139961
    """Focal length of named moves, as a share of the width of a 16:9 picture, above 0 to 100. Default: 0.532139961."""

    fps: Annotated[float, Field(gt=0, le=1000), Hint(unit="frames/s", advanced=True)] | None = None
    """Poses per second of a file, above 0 to 1000. Default: as its times say; without times, one for every frame."""

    @model_validator(mode="after")
    def _one_of_them(self) -> CameraOptions:
        given = [name for name in ("path", "move", "poses") if getattr(self, name)]
        if len(given) != 1:
            said = f"'{given[0]}' and '{given[1]}' exclude each other" if given else "no camera path is given"
            raise ValueError(f"{said}: give one of 'path', 'move', 'poses'")
        if self.move is None and (wrong := {"speed", "focal"} & self.model_fields_set):
            raise ValueError(f"'{sorted(wrong)[0]}' is for a 'move'; a file has its own")
        return self


class CameraGivenOptions(Model):
    """The path of the clip's camera, from the dataset's signal `camera`."""

    empty: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of clips without one, 0…1. Default: 0."""


def _tracks(points: object) -> object:
    """JSON as text becomes lists; a path stays text."""
    points = _path(points)
    if isinstance(points, str) and points.lstrip()[:1] in ("[", "{"):
        try:
            points = json.loads(points)
        except ValueError as error:
            raise ValueError(f"is not valid JSON: {error}") from error
    return points


class TrajectoryOptions(Model):
    """Paths along which things move, drawn as a control video."""

    points: Annotated[
        Any,
        BeforeValidator(_tracks),
        WithJsonSchema({"anyOf": [{"type": "string", "format": "path"}, {"type": "array"}]}),
        Hint(media="file", flag="trajectory"),
    ]
    """JSON file, or a list of points [x, y] in pixels for each thing that moves, [[[8, 20], [40, 24]], …]. A path is
    spread evenly over the result; one point stands still."""

    size: Annotated[Size | None, Hint(unit="px", advanced=True)] = None
    """HEIGHTxWIDTH of the picture that the points were set on. Default: a file's own, else the result's."""
