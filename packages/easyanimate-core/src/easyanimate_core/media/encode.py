"""One class per file format: frames `(H, W, 3)` uint8 in order, then `close`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast

import av
import av.error
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from easyanimate_core.errors import MediaError, UnsupportedCodec
from easyanimate_core.media.seal import MP4_FLAGS

__all__ = ["Encoder", "GifEncoder", "Mp4Encoder", "PngEncoder", "explained"]

_BT709 = 1  # ISO/IEC 23091-2: the same code for primaries, transfer and matrix
_LIMITED = 1  # FFmpeg's AVCOL_RANGE_MPEG: luma in 16…235


class Encoder(Protocol):
    """What every format can do."""

    def add(self, frame: NDArray[np.uint8], index: int) -> None:
        """Append frame number `index`, counted from 0: `(H, W, 3)`, C-contiguous."""
        ...

    def close(self, *, finish: bool) -> None:
        """Release the file; with `finish`, complete it first."""
        ...


class _Coded:
    """What mp4 and gif share: a container with one video stream."""

    def __init__(self, container: OutputContainer, codec: str, height: int, width: int, rate: Fraction) -> None:
        self._container = container
        self._stream = cast(VideoStream, container.add_stream(codec, rate=rate))
        self._stream.height, self._stream.width = height, width
        self._tick = 1 / rate

    def _send(self, picture: av.VideoFrame, index: int) -> None:
        picture.pts, picture.time_base = index, self._tick
        self._container.mux(self._stream.encode(picture))

    def close(self, *, finish: bool) -> None:
        """Flush the encoder when `finish`, then close the container."""
        try:
            if finish:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


class Mp4Encoder(_Coded):
    """H.264 that browsers play: yuv420p, BT.709, index in front."""

    def __init__(self, path: Path, height: int, width: int, rate: Fraction, crf: float) -> None:
        container = av.open(str(path), "w", format="mp4", options={"movflags": MP4_FLAGS})
        super().__init__(container, "libx264", height + height % 2, width + width % 2, rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": str(crf), "preset": "medium"}
        # Tagged, because players guess differently for small untagged videos, and colours would shift.
        context = self._stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED

    def add(self, frame: NDArray[np.uint8], index: int) -> None:
        """Append a frame; an odd side is padded by its last row or column."""
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        self._send(picture.reformat(format="yuv420p", dst_colorspace="ITU709"), index)


class GifEncoder(_Coded):
    """A palette of 256 colours per frame; times in 1/100 s."""

    def __init__(self, path: Path, height: int, width: int, rate: Fraction) -> None:
        super().__init__(av.open(str(path), "w", format="gif"), "gif", height, width, rate)
        self._stream.pix_fmt = "pal8"

    def add(self, frame: NDArray[np.uint8], index: int) -> None:
        """Append a frame in its own palette."""
        # A palette of the frame's own colours: FFmpeg's fixed 3-3-2 cube would band every gradient.
        indexed = Image.fromarray(frame).quantize(256)
        colours = np.asarray(indexed.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        palette = np.full((256, 4), 255, dtype=np.uint8)  # A R G B
        palette[: len(colours), 1:] = colours
        # PyAV takes (indices, palette) for pal8; its type stubs do not know.
        picture = av.VideoFrame.from_ndarray((np.asarray(indexed), palette), format="pal8")  # type: ignore[arg-type]
        self._send(picture, index)


class PngEncoder:
    """One frame."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, frame: NDArray[np.uint8], index: int) -> None:
        """Write the frame; a second one raises `MediaError`."""
        if index:
            raise MediaError("a .png holds 1 frame", "Use .mp4 or .gif, or ask for 1 frame.")
        Image.fromarray(frame).save(self._path, format="png")

    def close(self, *, finish: bool) -> None:
        """Nothing is left to do."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what FFmpeg and the file system raise while writing `path` into errors that say so.

    Raises:
        UnsupportedCodec: the codec is not in this build of FFmpeg.
        MediaError: anything else, a full disk for example.
    """
    try:
        yield
    except UnknownCodecError as error:
        raise UnsupportedCodec(
            f"this build of FFmpeg cannot encode '{path.suffix}' ({error})", "Reinstall PyAV: pip install -U av"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"writing '{path}' failed: {error.strerror or error}", "Is the disk full?") from error
