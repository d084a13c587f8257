"""Pixels to files: `.mp4` (H.264, plays in browsers), `.gif`, and `.png` for one frame.

Frames arrive in chunks, so that a streamed decode never holds the whole clip. A file is written under a
hidden name beside its place and renamed when it is whole: an error, a cancel or Ctrl-C leaves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from easyanimate_core.errors import MediaError
from easyanimate_core.media.encode import Encoder, GifEncoder, Mp4Encoder, PngEncoder, explained
from easyanimate_core.media.paths import check_writable, claim_partial, next_numbered, publish

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import Video

__all__ = ["NOTES_KEY", "VideoWriter", "check_writable", "next_numbered", "to_uint8", "write_video"]

NOTES_KEY = "easyanimate"
"""Metadata key under which `write_video` keeps a video's notes, as JSON."""


def write_video(video: Video, path: str | Path, *, overwrite: bool = False, crf: float = 14) -> Path:
    """Write the first sample of a video; the suffix of `path` decides how.

    Args:
        video: frames `(B, 3, F, H, W)` in 0…1; values outside are clamped.
        path: `.mp4`, `.gif` or, for one frame, `.png`. Missing parent folders are made.
        overwrite: replace an existing file.
        crf: H.264 quality of an mp4, from 0 (lossless) to 51; lower is better.

    Returns:
        The path. Its metadata hold the video's notes as JSON under `NOTES_KEY` (not in a gif).

    Raises:
        MediaError: unknown suffix, existing file, folder not writable, several frames for a `.png`, or
            frames that are not finite.
    """
    frames = video.frames[0].permute(1, 2, 3, 0)  # (F, H, W, 3)
    check_writable(path, overwrite, frames=frames.shape[0])
    notes = {NOTES_KEY: json.dumps(dict(video.notes), ensure_ascii=False)} if video.notes else {}
    with VideoWriter(path, fps=video.fps, metadata=notes, overwrite=overwrite, crf=crf) as writer:
        for chunk in frames.split(16):  # the uint8 copy stays small beside a long clip
            writer.write(chunk)
    return writer.path


def to_uint8(frames: NDArray[Any] | Tensor) -> NDArray[np.uint8]:
    """Frames of any shape to bytes: uint8 unchanged, floats in 0…1 clamped, scaled and *truncated*.

    Truncation (`int(x·255)`, not rounding) is how the released models' videos have always been written.

    Raises:
        MediaError: values are not finite, or the type is neither uint8 nor floating point.
    """
    if not isinstance(frames, np.ndarray):
        tensor = frames.detach().cpu()
        frames = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise MediaError(f"frames of type '{frames.dtype}' cannot be written", "Give uint8, or floats in 0…1.")
    if not np.isfinite(frames).all():
        raise MediaError(
            "the frames hold values that are not finite (NaN or infinity)",
            "The weights may be damaged, or the precision too low: try float32.",
        )
    return (frames.astype(np.float32, copy=False).clip(0, 1) * np.float32(255)).astype(np.uint8)


class VideoWriter:
    """Writes a clip chunk by chunk; use it as a context manager.

    On a clean exit the file appears under its name, whole; on any exception nothing remains.

    - `.mp4`: H.264, yuv420p, BT.709, index in front (`faststart`), metadata readable by
      `read.read_metadata`. yuv420p needs even sides: an odd side is *padded* by repeating its last row or
      column, so that no pixel is lost.
    - `.gif`: one palette of 256 colours per frame; frame times are rounded to 1/100 s without drifting.
      No metadata.
    - `.png`: one frame, metadata as text chunks.

    Attributes:
        path: where the file will be.
        frames: how many frames were written so far.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: float,
        metadata: Mapping[str, str] | None = None,
        overwrite: bool = False,
        crf: float = 14,
    ) -> None:
        """Check the path; nothing is created before `with`.

        Args:
            path: `.mp4`, `.gif` or `.png`; missing parent folders are made.
            fps: frames per second, 0.1 … 1000; at most 50 in a gif.
            metadata: text by key, kept in the file.
            overwrite: replace an existing file.
            crf: H.264 quality, 0 (lossless) … 51.

        Raises:
            MediaError: the path cannot be written, or `fps` or `crf` is out of range.
        """
        most = 50 if Path(path).suffix.lower() == ".gif" else 1000  # browsers slow gifs below 1/50 s per frame
        if not 0.1 <= fps <= most:
            raise MediaError(f"cannot write '{fps}' frames per second", f"'{path}' can have 0.1 to {most}.")
        if not 0 <= crf <= 51:
            raise MediaError(f"quality crf '{crf}' is out of range", "Use 0 (lossless) to 51; 14 is the default.")
        self.path = check_writable(path, overwrite)
        self.frames = 0
        self._rate = Fraction(fps).limit_denominator(1001)  # 1001: exact for 23.976 and 29.97
        self._metadata = dict(metadata or {})
        self._overwrite = overwrite
        self._crf = crf
        self._size: tuple[int, int] | None = None
        self._partial: Path | None = None
        self._encoder: Encoder | None = None

    def __enter__(self) -> VideoWriter:
        """Make the folder and the hidden partial file."""
        self._partial = claim_partial(self.path)
        return self

    def write(self, chunk: NDArray[Any] | Tensor) -> None:
        """Append frames `(F, H, W, 3)`: uint8, or floats in 0…1. All chunks have the same size.

        Raises:
            MediaError: another shape than `(F, H, W, 3)`, a size that changed, a second frame for a `.png`,
                frames that are not finite, or a full disk.
            UnsupportedCodec: this build of FFmpeg cannot encode the format.
        """
        if self._partial is None:
            raise MediaError("the writer is not open", "Use it in a 'with' statement.")
        if chunk.ndim != 4 or chunk.shape[-1] != 3:
            raise MediaError(f"frames have shape '{tuple(chunk.shape)}'", "Give (frames, height, width, 3).")
        frames = to_uint8(chunk)
        size = (frames.shape[1], frames.shape[2])
        if self._size is not None and size != self._size:
            raise MediaError(f"a frame of {size[1]}×{size[0]} follows frames of {self._size[1]}×{self._size[0]}")
        if not len(frames):
            return
        self._size = size
        with explained(self.path):
            if self._encoder is None:
                self._encoder = self._open(*size)
            for frame in frames:
                self._encoder.add(np.ascontiguousarray(frame), self.frames)
                self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish and publish the file, or remove every trace of it."""
        partial, encoder = self._partial, self._encoder
        self._partial = self._encoder = None
        if partial is None:
            return
        try:
            if encoder is None and kind is None:
                raise MediaError(f"no frames were written to '{self.path}'")
            if encoder is not None:
                # Of two errors, the first is the one to tell.
                with suppress(MediaError) if kind else nullcontext(), explained(self.path):
                    encoder.close(finish=kind is None)
            if kind is None:
                publish(partial, self.path, overwrite=self._overwrite)
        finally:
            partial.unlink(missing_ok=True)

    def _open(self, height: int, width: int) -> Encoder:
        assert self._partial is not None
        match self.path.suffix.lower():
            case ".png":
                return PngEncoder(self._partial, self._metadata)
            case ".gif":
                return GifEncoder(self._partial, height, width, self._rate)
            case _:
                return Mp4Encoder(self._partial, height, width, self._rate, self._metadata, self._crf)
