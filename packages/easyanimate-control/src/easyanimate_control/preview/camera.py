"""What a camera path does: the view through the camera, and the path seen from behind."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from easyanimate_control.camera.path import CameraPath
from easyanimate_control.preview.canvas import BACKGROUND, DIM, INK, Board, Colour, ramp
from easyanimate_control.preview.scene import Eye, draw_room, look_at

__all__ = ["HEIGHT", "WIDTH", "CameraPreview"]

HEIGHT: Final = 270
"""Of a panel in pixels."""

WIDTH: Final = 480
"""Of a panel in pixels."""

_BAR: Final = 26
_FRUSTA: Final = 7
_ROOM: Final = ((-2.0, 0.3, 4.5), (2.2, 0.3, 4.0), (0.3, -1.0, 6.5))  # what should be in the picture besides the path


class CameraPreview:
    """Draws a path, as one picture or frame by frame."""

    def __init__(self, path: CameraPath, title: str = "") -> None:
        self.path, self.title = path, title
        self._placed = path.relative()
        self._eye = self._behind()
        self._room = Board(HEIGHT, WIDTH, BACKGROUND)
        draw_room(self._room, self._eye, sky=False)
        places = self._placed[:, :3, 3]
        for index in range(len(path) - 1):
            self._room.line(self._eye.line(places[index : index + 2]).tolist(), ramp(self._share(index)), 3)

    def sheet(self) -> NDArray[np.uint8]:
        """One picture `(592, 960, 3)`: the view in the first, middle and last frame, and the path."""
        last = len(self.path) - 1
        board = Board(2 * (HEIGHT + _BAR), 2 * WIDTH)
        for index, frame in enumerate((0, last // 2, last)):
            left, top = index % 2 * WIDTH, index // 2 * (HEIGHT + _BAR)
            board.put(self._view(frame), left, top + _BAR)
            board.text((left + 10, top + 6), f"frame {frame}", ramp(self._share(frame)))
        shown = np.unique(np.linspace(0, last, _FRUSTA).round().astype(int))
        board.put(self._map(shown.tolist()), WIDTH, HEIGHT + 2 * _BAR)
        board.text((WIDTH + 10, HEIGHT + _BAR + 6), self._summary(), DIM)
        board.text((2 * WIDTH - 10, 6), self.title, INK, anchor="ra")
        return board.finished()

    def frame(self, frame: int) -> NDArray[np.uint8]:
        """A frame of a video `(296, 960, 3)`: the view on the left, the camera on its path on the right."""
        board = Board(HEIGHT + _BAR, 2 * WIDTH)
        board.put(self._view(frame), 0, _BAR)
        board.put(self._map([frame]), WIDTH, _BAR)
        board.text((10, 6), f"frame {frame} of {len(self.path)}", ramp(self._share(frame)))
        board.text((WIDTH + 10, 6), self._summary(), DIM)
        board.text((2 * WIDTH - 10, 6), self.title, INK, anchor="ra")
        return board.finished()

    def _share(self, frame: int) -> float:
        return frame / max(len(self.path) - 1, 1)

    def _summary(self) -> str:
        steps = np.linalg.norm(np.diff(self._placed[:, :3, 3], axis=0), axis=1)
        turn = np.degrees(np.arccos(np.clip((np.trace(self._placed[-1, :3, :3]) - 1) / 2, -1, 1)))
        return f"{len(self.path)} poses, travels {steps.sum():.2f}, turns {turn:.0f}°"

    def _view(self, frame: int) -> Board:
        """Through the camera; a panel of 16:9 is the picture that the lens is relative to."""
        fx, fy, cx, cy = (float(value) for value in self.path.lenses[frame])
        pose = np.linalg.inv(self._placed[frame])[:3]
        board = Board(HEIGHT, WIDTH)
        draw_room(board, Eye(pose, (fx * WIDTH, fy * HEIGHT), (cx * WIDTH, cy * HEIGHT)))
        return board

    def _behind(self) -> Eye:
        """Behind and above, far enough away that all of the path can be seen, and the room."""
        points = np.concatenate([self._placed[:, :3, 3], _ROOM])
        target = (points.min(axis=0) + points.max(axis=0)) / 2
        distance = 2.5 * float(np.linalg.norm(points - target, axis=1).max())
        pose = look_at(target + distance * np.array([0.52, -0.52, -0.68]), target)
        return Eye(pose, (0.95 * WIDTH, 0.95 * WIDTH), (WIDTH / 2, HEIGHT / 2))

    def _map(self, frames: list[int]) -> Board:
        board = self._room.copy()
        for frame in frames:
            _draw_frustum(board, self._eye, self._placed[frame], self.path.lenses[frame], ramp(self._share(frame)))
        return board


def _draw_frustum(
    board: Board, eye: Eye, placed: NDArray[np.float64], lens: NDArray[np.float64], colour: Colour
) -> None:
    """A camera as a small pyramid: its tip is where it stands, its base what it sees; a tab shows what is up."""
    fx, fy, cx, cy = lens
    sides = [((x - cx) / fx, (y - cy) / fy) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
    up = (0.5 - cx) / fx, (-0.22 - cy) / fy
    local = np.array([(0, 0, 0), *((x, y, 1) for x, y in (*sides, up))]) * 0.55
    world = local @ placed[:3, :3].T + placed[:3, 3]
    tip, *base, tab = world
    for corner in base:
        board.line(eye.line(np.array([tip, corner])).tolist(), colour, 1.3)
    board.line(eye.area(np.array([*base, base[0]])).tolist(), colour, 1.8)
    board.area(eye.area(np.array([base[0], tab, base[1]])).tolist(), colour)
