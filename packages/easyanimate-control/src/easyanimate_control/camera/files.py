"""Camera paths in files: the text of RealEstate10K and CameraCtrl, and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from easyanimate_control.camera.path import COLUMNS, CameraPath, check_row
from easyanimate_core.errors import InvalidRequest

__all__ = ["camera_json", "camera_text", "parse_camera", "read_camera"]


def read_camera(path: str | Path) -> CameraPath:
    """Read a camera file, whatever its suffix: JSON when it begins with a bracket, else text.

    Raises:
        InvalidRequest: the file is missing, is not text, or does not hold a path; see `parse_camera`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot read the camera file '{path}': {error.strerror}", "Give its path.") from error
    except UnicodeDecodeError as error:
        hint = "It holds one line of 19 numbers for every frame."
        raise InvalidRequest(f"the camera file '{path}' is not text", hint) from error
    return parse_camera(text, where=f"'{path}'")


def parse_camera(text: str, *, where: str = "the camera path") -> CameraPath:
    """Read a path.

    Text: the first line is a title (RealEstate10K has the video's address there) and is left out unless it is a pose
    itself; empty lines are left out; every other line has 19 numbers with spaces between them. JSON: a list of rows of
    19 numbers, or of 18 without the time; as text inside a JSON string too, as ComfyUI passes it.

    Args:
        text: content of a file.
        where: what is being read, for messages.

    Raises:
        InvalidRequest: as `CameraPath.of_rows`; in text, the message names the line of the file.
    """
    if text.lstrip()[:1] in ("[", "{", '"'):
        return CameraPath.of_rows(_json_rows(text, where), where=where)
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or (number == 1 and not _is_pose(words)):
            continue
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            shown = line if len(line) <= 60 else f"{line[:57]}..."
            hint = f"After the first line, every line has {COLUMNS} numbers."
            raise InvalidRequest(f"{where}, line {number}: '{shown}' are not numbers", hint) from error
        if len(row) != COLUMNS:
            raise InvalidRequest(
                f"{where}, line {number} has '{len(row)}' numbers, not {COLUMNS}",
                "A line is: time fx fy cx cy 0 0, then the 3x4 world-to-camera pose row by row.",
            )
        rows.append(check_row(row, where=f"{where}, line {number}"))
    return CameraPath.of_rows(rows, where=where)


def camera_text(path: CameraPath, title: str = "") -> str:
    """A path as `parse_camera` reads it, with nine decimals and a title in the first line."""
    lines = (
        " ".join([f"{row[0]:.0f}", *(f"{number:.9f}" for number in row[1:].round(9) + 0.0)]) for row in path.rows()
    )
    return "\n".join([" ".join(title.split()), *lines, ""])


def camera_json(path: CameraPath) -> str:
    """A path as JSON: a list of rows of 19 numbers."""
    rows = (json.dumps([round(float(number), 9) + 0.0 for number in row]) for row in path.rows())
    return "[\n" + ",\n".join(rows) + "\n]\n"


def _is_pose(words: list[str]) -> bool:
    try:
        return len([float(word) for word in words]) == COLUMNS
    except ValueError:
        return False


def _json_rows(text: str, where: str) -> list[Any]:
    try:
        rows = json.loads(text)
        rows = json.loads(rows) if isinstance(rows, str) else rows
    except ValueError as error:
        raise InvalidRequest(f"{where} is not valid JSON: {error}", "Give a list of rows of 19 numbers.") from error
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise InvalidRequest(f"{where} is no list of rows", "Give a JSON list of lists of 19 numbers.")
    return rows
