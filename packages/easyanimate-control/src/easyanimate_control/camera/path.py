"""`CameraPath`: where a camera is in every frame, and how it sees.

Conventions are those of CameraCtrl (He et al., 2024) and RealEstate10K (Zhou et al., "Stereo Magnification", 2018):
poses are *world to camera*, x to the right, y down, z away from the viewer; lengths have no unit (a released named
move travels 1.5, where a scene is a few units deep). Lenses are written relative to the picture: `fx` and `cx` by its
width, `fy` and `cy` by its height, for pictures of 1280×720.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from easyanimate_control.camera.moves import Move
from easyanimate_core.errors import InvalidRequest

__all__ = ["COLUMNS", "FOCAL", "SHIFT", "SOURCE_RATIO", "TURN", "CameraPath", "check_row", "path_of_moves"]

COLUMNS: Final = 19
"""Numbers in a row of a camera file: time, fx, fy, cx, cy, two zeros, and 3×4 of the pose row by row."""

SOURCE_RATIO: Final = 1280 / 720
"""Width to height of the pictures that a file's lens is relative to."""

FOCAL: Final = 0.532139961
"""Default focal length, as a share of the width of a 16:9 picture: about 86° of view. Released examples have it."""

SHIFT: Final = 1.5
"""Length that a move of 1 travels."""

TURN: Final = np.pi / 3
"""Angle that a roll of 1 turns, in radians."""

_CROOKED: Final = 0.02  # files have six digits and more


@dataclass(frozen=True, slots=True, eq=False)
class CameraPath:
    """A camera in every frame.

    Attributes:
        lenses: `(F, 4)` float64: fx, fy, cx, cy, relative to the picture's width and height.
        poses: `(F, 3, 4)` float64, world to camera: rotation and translation.
        times: `(F,)` float64, in microseconds of the video that the poses are from; all 0 when they are from none.
    """

    lenses: NDArray[np.float64]
    poses: NDArray[np.float64]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.poses)

    @classmethod
    def of_rows(
        cls, rows: Sequence[Sequence[float] | NDArray[np.float64]], *, where: str = "the camera path"
    ) -> CameraPath:
        """Read rows of 19 numbers, or of 18 without the time.

        Args:
            rows: one per frame.
            where: what is being read, for messages.

        Raises:
            InvalidRequest: there is no row, or one has another length, holds NaN or infinity, has a focal length that
                is not above 0, or a pose whose first three columns are no rotation.
        """
        if not len(rows):
            raise InvalidRequest(f"{where} has no poses", "Give one row of 19 numbers for every frame.")
        table = np.stack([check_row(row, where=f"{where}, row {number}") for number, row in enumerate(rows, start=1)])
        return cls(table[:, 1:5], table[:, 7:].reshape(-1, 3, 4), table[:, 0])

    def rows(self) -> NDArray[np.float64]:
        """`(F, 19)`: what `of_rows` reads."""
        zeros = np.zeros((len(self), 2))
        return np.concatenate([self.times[:, None], self.lenses, zeros, self.poses.reshape(-1, 12)], axis=1)

    @property
    def fps(self) -> float | None:
        """Frames per second that the times tell (their median step); `None` without times."""
        steps = np.diff(self.times)
        step = float(np.median(steps)) if len(steps) else 0.0
        return 1e6 / step if step > 0 else None

    def thinned(self, stride: int, frames: int | None = None) -> CameraPath:
        """Every `stride`-th pose from the first one on, at most `frames`."""
        kept = slice(None, None if frames is None else frames * stride, stride)
        return CameraPath(self.lenses[kept], self.poses[kept], self.times[kept])

    def resampled(self, frames: int) -> CameraPath:
        """The path with another number of poses, from its first to its last one, linear in every number.

        As in the training of released models. Between poses that are far apart a mean of two rotations is not quite a
        rotation. The result has no times.
        """
        if len(self) == frames:
            return self
        at = np.linspace(0, len(self) - 1, frames)
        before = np.minimum(at.astype(int), len(self) - 1)
        after = np.minimum(before + 1, len(self) - 1)
        share = (at - before)[:, None]
        rows = np.concatenate([self.lenses, self.poses.reshape(-1, 12)], axis=1)
        mixed = rows[before] * (1 - share) + rows[after] * share
        return CameraPath(mixed[:, :4], mixed[:, 4:].reshape(-1, 3, 4), np.zeros(frames))

    def relative(self) -> NDArray[np.float64]:
        """Camera to world, `(F, 4, 4)`, in a world in which the first camera stands at the origin and looks along z."""
        square = np.broadcast_to(np.eye(4), (len(self), 4, 4)).copy()
        square[:, :3] = self.poses
        placed: NDArray[np.float64] = square[0] @ np.linalg.inv(square)
        placed[0] = np.eye(4)  # exactly
        return placed

    def then(self, other: CameraPath) -> CameraPath:
        """This path, and after it another one that begins where this one ends; the meeting pose stands twice."""
        turn, shift = self.poses[-1, :, :3], self.poses[-1, :, 3]
        poses = other.poses.copy()
        poses[:, :, :3] = other.poses[:, :, :3] @ turn
        poses[:, :, 3] = other.poses[:, :, 3] + other.poses[:, :, :3] @ shift
        lenses = np.concatenate([self.lenses, other.lenses])
        return CameraPath(lenses, np.concatenate([self.poses, poses]), np.zeros(len(lenses)))


def path_of_moves(moves: Sequence[Move], frames: int, *, speed: float = 1.0, focal: float = FOCAL) -> CameraPath:
    """The path of named moves. Frame i of n has done the share i/n, so the last frame is one step before the end.

    Args:
        moves: one after the other; the first ones get a frame more where `frames` cannot be shared out evenly.
        frames: of the whole path, at least one for every move.
        speed: factor on all of them; below 0 they go the other way.
        focal: focal length, as a share of the width of a 16:9 picture.

    Raises:
        InvalidRequest: there are more moves than frames.
    """
    if len(moves) > frames:
        raise InvalidRequest(f"'{len(moves)}' camera moves do not fit into {frames} frames", "Ask for more frames.")
    lens = np.array([focal, focal * SOURCE_RATIO, 0.5, 0.5])
    path: CameraPath | None = None
    for index, move in enumerate(moves):
        count = frames // len(moves) + (index < frames % len(moves))
        part = CameraPath(np.tile(lens, (count, 1)), _poses(move * speed, count), np.zeros(count))
        path = part if path is None else path.then(part)
    assert path is not None
    return path


def _poses(move: Move, frames: int) -> NDArray[np.float64]:
    share = np.arange(frames) / frames
    angle = share * move.roll * TURN
    poses = np.zeros((frames, 3, 4))
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(angle)
    poses[:, 1, 0] = np.sin(angle)
    poses[:, 0, 1] = -poses[:, 1, 0]
    poses[:, 2, 2] = 1
    poses[:, :, 3] = share[:, None] * np.asarray(move.shift) * SHIFT
    return poses


def check_row(row: Any, *, where: str) -> NDArray[np.float64]:
    """A row of 19 numbers, or of 18 without the time, as `(19,)` float64.

    Args:
        row: what was given for one frame.
        where: what is being read, for messages.

    Raises:
        InvalidRequest: as `CameraPath.of_rows`.
    """
    try:
        numbers = np.asarray(row, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{where}: '{row}' are not numbers", "Give 19 numbers a row.") from error
    if numbers.ndim == 1 and len(numbers) == COLUMNS - 1:
        numbers = np.concatenate([[0.0], numbers])
    if numbers.shape != (COLUMNS,):
        raise InvalidRequest(
            f"{where} has '{numbers.size}' numbers, not {COLUMNS}",
            "A row is: time fx fy cx cy 0 0, then the 3x4 world-to-camera pose row by row.",
        )
    if not np.isfinite(numbers).all():
        column = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise InvalidRequest(f"{where}: number {column + 1} is '{numbers[column]:g}'", "All numbers have to be finite.")
    if not (numbers[1:3] > 0).all():
        raise InvalidRequest(
            f"{where}: the focal lengths are '{numbers[1]:g}' and '{numbers[2]:g}'",
            "Both are above 0, relative to the picture's width and height.",
        )
    turn = numbers[7:].reshape(3, 4)[:, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > _CROOKED or np.linalg.det(turn) < 0:
        raise InvalidRequest(
            f"{where}: the pose's rotation is none: '{' '.join(f'{value:g}' for value in turn.ravel())}'",
            "Each of the three lines of a pose is three numbers of the rotation and one of the translation.",
        )
    return numbers
