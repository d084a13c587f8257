"""Pixels to files: `.mp4` (H.264, plays in browsers), `.gif`, and `.png` for one frame.

Frames arrive in chunks, so that a streamed decode never holds the whole clip. A file is written under a
hidden name beside its place and renamed when it is whole: an error, a cancel or Ctrl-C leaves nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from easyanimate_core.errors import MediaError
from easyanimate_core.media.encode import Encoder, GifEncoder, Mp4Encoder, PngEncoder, explained
from easyanimate_core.media.paths import check_writable, claim_partial, next_numbered, publish
from easyanimate_core.media.read import read_metadata
from easyanimate_core.media.seal import seal, stored_digest

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import Video

__all__ = [
    "NOTES_KEY",
    "Metadata",
    "VideoWriter",
    "Written",
    "check_writable",
    "next_numbered",
    "to_uint8",
    "write_video",
]

NOTES_KEY = "easyanimate"
"""Metadata key under which `write_video` keeps a video's notes, as JSON."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a finished file holds.

    Attributes:
        frames: how many.
        height: of the frames as they were given, in pixels.
        width: of the frames as they were given, in pixels.
        frames_sha256: of all frames as they were given, `(F, H, W, 3)` uint8.
        stored_sha256: of the pictures as the file holds them; see `seal.stored_digest`.
    """

    frames: int
    height: int
    width: int
    frames_sha256: str
    stored_sha256: str


Metadata = Mapping[str, str] | Callable[[Written], Mapping[str, str]]
"""Text by key, or what makes it when all frames are written."""


def write_video(video: Video, path: str | Path, *, overwrite: bool = False, crf: float = 14) -> Path:
    """Write the first sample of a video; the suffix of `path` decides how.

    Args:
        video: frames `(B, 3, F, H, W)` in 0…1; values outside are clamped.
        path: `.mp4`, `.gif` or, for one frame, `.png`. Missing parent folders are made.
        overwrite: replace an existing file.
        crf: H.264 quality of an mp4, from 0 (lossless) to 51; lower is better.

    Returns:
        The path. Its metadata hold the video's notes as JSON under `NOTES_KEY`.

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

    - `.mp4`: H.264, yuv420p, BT.709, index in front (`faststart`). yuv420p needs even sides: an odd side is
      *padded* by repeating its last row or column, so that no pixel is lost.
    - `.gif`: one palette of 256 colours per frame; frame times are rounded to 1/100 s without drifting.
    - `.png`: one frame.

    Metadata are written last, read back with `read.read_metadata` and compared, before the file appears.

    Attributes:
        path: where the file will be; with `numbered`, where it is once it is there.
        frames: how many frames were written so far.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: float,
        metadata: Metadata | None = None,
        overwrite: bool = False,
        crf: float = 14,
        numbered: bool = False,
        tag: str = "",
        before_publish: Callable[[Path, Path], None] | None = None,
    ) -> None:
        """Check the path; nothing is created before `with`.

        Args:
            path: `.mp4`, `.gif` or `.png`; missing parent folders are made.
            fps: frames per second, 0.1 … 1000; at most 50 in a gif.
            metadata: text by key, kept in the file.
            overwrite: replace an existing file.
            crf: H.264 quality, 0 (lossless) … 51.
            numbered: when somebody takes the path meanwhile, take the next free number of its folder.
            tag: a word in the name of the unfinished file; see `paths.partials`.
            before_publish: called with the finished, still hidden file and the name that it gets next.

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
        self._metadata = metadata or {}
        self._numbered, self._tag, self._before_publish = numbered, tag, before_publish
        self._digest = hashlib.sha256()
        self._overwrite = overwrite
        self._crf = crf
        self._size: tuple[int, int] | None = None
        self._partial: Path | None = None
        self._encoder: Encoder | None = None

    def __enter__(self) -> VideoWriter:
        """Make the folder and the hidden partial file."""
        self._partial = claim_partial(self.path, self._tag)
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
            for frame in np.ascontiguousarray(frames):
                self._digest.update(frame)
                self._encoder.add(frame, self.frames)
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
                self._seal(partial)
                self._publish(partial)
        finally:
            partial.unlink(missing_ok=True)

    def _seal(self, partial: Path) -> None:
        """Put the metadata into the finished file, and see whether they are there."""
        if not self._metadata:
            return
        with explained(self.path):
            wanted = self._metadata(self._written(partial)) if callable(self._metadata) else self._metadata
            if wanted:
                seal(partial, wanted)
        there = read_metadata(partial) if wanted else {}
        if lost := [key for key, text in wanted.items() if there.get(key) != text]:
            raise MediaError(f"'{self.path}' did not keep the metadata '{lost[0]}'", "Write another kind of file.")

    def _written(self, partial: Path) -> Written:
        assert self._size is not None
        return Written(self.frames, *self._size, self._digest.hexdigest(), stored_digest(partial))

    def _publish(self, partial: Path) -> None:
        while True:
            if self._before_publish is not None:
                self._before_publish(partial, self.path)
            try:
                return publish(partial, self.path, overwrite=self._overwrite)
            except MediaError:
                if not (self._numbered and self.path.exists()):
                    raise
            self.path = next_numbered(self.path.parent, self.path.suffix)

    def _open(self, height: int, width: int) -> Encoder:
        assert self._partial is not None
        match self.path.suffix.lower():
            case ".png":
                return PngEncoder(self._partial)
            case ".gif":
                return GifEncoder(self._partial, height, width, self._rate)
            case _:
                return Mp4Encoder(self._partial, height, width, self._rate, self._crf)
