"""Tracks of points: read from JSON or lists, spread over a clip, brought to its size."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from easyanimate_core.errors import InvalidRequest

__all__ = ["Tracks", "parse_tracks", "read_tracks", "tracks_json"]


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Paths of things that move at the same time.

    Attributes:
        paths: one `(P, 2)` float64 array for each: x to the right, y down, in pixels of the picture that the points
            were set on. Lengths may differ.
        height: of that picture in pixels; `None` when nobody said.
        width: of that picture in pixels; `None` when nobody said.
    """

    paths: tuple[NDArray[np.float64], ...]
    height: int | None = None
    width: int | None = None

    def spread(self, frames: int) -> NDArray[np.float64]:
        """Every path in every frame, `(N, frames, 2)`: from its first to its last point, evenly in time, straight
        between two points. One point stands still; a path with as many points as frames is itself."""
        placed = np.empty((len(self.paths), frames, 2))
        for index, path in enumerate(self.paths):
            at = np.linspace(0, len(path) - 1, frames)
            for axis in (0, 1):
                placed[index, :, axis] = np.interp(at, np.arange(len(path)), path[:, axis])
        return placed

    def fitted(self, height: int, width: int) -> Tracks:
        """The same paths on a picture of another size; unchanged when nobody said what the points were set on."""
        if self.height is None or self.width is None:
            return replace(self, height=height, width=width)
        factor = np.array([width / self.width, height / self.height])
        return Tracks(tuple(path * factor for path in self.paths), height, width)

    def checked(self, height: int, width: int) -> Tracks:
        """Itself, when something of it can be seen in a frame of this size.

        Things may leave the frame and come back: what is outside is not drawn.

        Raises:
            InvalidRequest: a track has no point inside the frame.
        """
        for number, path in enumerate(self.paths, start=1):
            inside = (path >= 0).all(axis=1) & (path[:, 0] < width) & (path[:, 1] < height)
            if not inside.any():
                raise InvalidRequest(
                    f"no point of track {number} is inside the frame of {height}x{width}; its first is "
                    f"'{path[0, 0]:g}, {path[0, 1]:g}'",
                    "Points are x, y in pixels; say with 'size' what picture they were set on.",
                )
        return self


def read_tracks(path: str | Path) -> Tracks:
    """Read a JSON file; see `parse_tracks`.

    Raises:
        InvalidRequest: the file is missing, is no JSON, or holds no tracks.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot read the trajectory '{path}': {error.strerror}", "Give its path.") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the trajectory '{path}' is not text", "It holds JSON.") from error
    return parse_tracks(_json(text, f"'{path}'"), where=f"'{path}'")


def parse_tracks(said: Any, *, where: str = "the trajectory") -> Tracks:
    """Read tracks from any of their spellings.

    Args:
        said: one track or a list of tracks. A track is a list of points, or text that holds one (as the spline editors
            of ComfyUI write it). A point is `[x, y]` or `{"x": …, "y": …}`. An object with `tracks` may also have
            `height` and `width`: of the picture that the points were set on.
        where: what is being read, for messages.

    Raises:
        InvalidRequest: it is none of these, a track is empty, or a number is not finite.
    """
    height = width = None
    if isinstance(said, Mapping):
        height, width = said.get("height"), said.get("width")
        if not all(side is None or (isinstance(side, int) and side > 0) for side in (height, width)):
            raise InvalidRequest(f"{where} has the size '{height}x{width}'", "Give 'height' and 'width' in pixels.")
        said = said.get("tracks")
    said = _json(said, where) if isinstance(said, str) else said
    if not isinstance(said, Sequence) or not said:
        raise InvalidRequest(f"{where} has no tracks", "Give a list of points: [[[8, 20], [40, 24]]].")
    listed = [_json(track, where) if isinstance(track, str) else track for track in said]
    many = listed if not _is_point(listed[0]) else [listed]
    paths = tuple(_track(track, f"{where}, track {number}") for number, track in enumerate(many, start=1))
    return Tracks(paths, height, width)


def tracks_json(tracks: Tracks) -> str:
    """Tracks as JSON that `read_tracks` reads."""
    rounded = [[[round(float(x), 3), round(float(y), 3)] for x, y in path] for path in tracks.paths]
    size = {} if tracks.height is None else {"height": tracks.height, "width": tracks.width}
    return json.dumps({**size, "tracks": rounded}) + "\n"


def _track(points: Any, where: str) -> NDArray[np.float64]:
    if not isinstance(points, Sequence) or isinstance(points, str) or not points:
        raise InvalidRequest(f"{where} has no points", "A track is a list of points [x, y].")
    path = np.array([_point(point, f"{where}, point {number}") for number, point in enumerate(points, start=1)])
    if not np.isfinite(path).all():
        number = int(np.flatnonzero(~np.isfinite(path).all(axis=1))[0])
        raise InvalidRequest(f"{where}, point {number + 1} is '{path[number, 0]:g}, {path[number, 1]:g}'", _FINITE)
    return path


_FINITE = "Coordinates have to be finite numbers."


def _is_point(said: Any) -> bool:
    if isinstance(said, Mapping):
        return True
    return isinstance(said, Sequence) and not isinstance(said, str) and bool(said) and _is_number(said[0])


def _is_number(said: Any) -> bool:
    return isinstance(said, int | float) and not isinstance(said, bool)


def _point(said: Any, where: str) -> tuple[float, float]:
    pair: Any = [said.get("x"), said.get("y")] if isinstance(said, Mapping) else said
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(_is_number(value) for value in pair):
        raise InvalidRequest(f"{where} is '{said}'", "A point is [x, y], or an object with 'x' and 'y'.")
    return float(pair[0]), float(pair[1])


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        reason = error
    try:  # the editors of ComfyUI write Python's quotes
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise InvalidRequest(f"{where} is not valid JSON: {reason}", "Give a list of points [x, y].") from reason
