"""What a trajectory does: its heat, and a line along every path."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from easyanimate_control.preview.canvas import BACKGROUND, DIM, GRID, INK, TRACKS, Board, Colour, blend
from easyanimate_control.trajectory.heat import heat_video
from easyanimate_control.trajectory.tracks import Tracks

__all__ = ["TracksPreview"]

_SIDE: Final = 640  # of the longer side of the picture
_BAR: Final = 26
_GLOW: Final = 0.45


class TracksPreview:
    """Draws tracks, as one picture or frame by frame."""

    def __init__(self, tracks: Tracks, frames: int, title: str = "") -> None:
        """Prepare tracks that know their size.

        Args:
            tracks: with height and width.
            frames: of the clip.
            title: said above it.
        """
        assert tracks.height is not None
        assert tracks.width is not None
        self.frames, self.title = frames, title
        self._size = tracks.height, tracks.width
        self._scale = _SIDE / max(self._size)
        self._height, self._width = (round(side * self._scale) for side in self._size)
        self._points = tracks.spread(frames)
        self._given = tracks.paths

    def sheet(self) -> NDArray[np.uint8]:
        """One picture: all paths from dark to bright, their points, and the heat where they end."""
        board = self._ground(self.frames - 1)
        for index, path in enumerate(self._given):
            for point in path:
                board.dot(self._at(point), 3.5, BACKGROUND, _colour(index))
        return self._finished(board, f"{len(self._given)} paths over {self.frames} frames")

    def frame(self, frame: int) -> NDArray[np.uint8]:
        """A frame of a video: the heat that the model sees, and where the paths lead."""
        return self._finished(self._ground(frame), f"frame {frame} of {self.frames}")

    def _ground(self, frame: int) -> Board:
        board = Board(self._height, self._width)
        heat = heat_video(self._points[:, frame : frame + 1], *self._size)[0, 0].numpy()
        tint = np.array(blend(BACKGROUND, (255, 255, 255), 0.75), dtype=np.float64) - BACKGROUND
        glow = (np.array(BACKGROUND) + heat[..., None] * _GLOW * tint).astype(np.uint8)
        board.put_picture(glow, 0, 0, self._height, self._width)
        for share in (1 / 3, 2 / 3):
            board.line([(share * self._width, 0), (share * self._width, self._height)], GRID, 1)
            board.line([(0, share * self._height), (self._width, share * self._height)], GRID, 1)
        for index, path in enumerate(self._points):
            self._draw_path(board, path, _colour(index), frame, str(index + 1))
        return board

    def _draw_path(self, board: Board, path: NDArray[np.float64], colour: Colour, frame: int, name: str) -> None:
        last = max(len(path) - 1, 1)
        placed = [self._at(point) for point in path]
        for index in range(len(path) - 1):
            done = blend(BACKGROUND, colour, 0.35 + 0.65 * index / last)
            board.line(placed[index : index + 2], done if index < frame else blend(BACKGROUND, colour, 0.3), 2.5)
        board.dot(placed[0], 4, blend(BACKGROUND, colour, 0.35), colour)
        board.dot(placed[frame], 6, colour, INK)
        x, y = placed[frame]
        board.text((x + 9, y - 9), name, INK, anchor="ls")

    def _finished(self, board: Board, words: str) -> NDArray[np.uint8]:
        whole = Board(self._height + _BAR, self._width)
        whole.put(board, 0, _BAR)
        whole.text((10, 6), words, DIM)
        whole.text((self._width - 10, 6), self.title or f"{self._size[0]}x{self._size[1]} px", INK, anchor="ra")
        return whole.finished()

    def _at(self, point: NDArray[np.float64]) -> tuple[float, float]:
        return float(point[0] * self._scale), float(point[1] * self._scale)


def _colour(index: int) -> Colour:
    return TRACKS[index % len(TRACKS)]
