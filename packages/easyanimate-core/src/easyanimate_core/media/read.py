"""Files to pixels: video, picture, and the metadata that our writer keeps in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from easyanimate_core.errors import UnreadableMedia
from easyanimate_core.media.seal import gif_comments

__all__ = [
    "VideoFacts",
    "frame_stride",
    "probe_video",
    "read_image",
    "read_metadata",
    "read_video",
    "stream_video",
]


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video says about itself.

    Attributes:
        height: in pixels, upright.
        width: in pixels, upright.
        frames: how many there are.
        fps: frames per second.
    """

    height: int
    width: int
    frames: int
    fps: float


def frame_stride(source: float, wanted: float) -> int:
    """Every how many frames of a source are kept for a frame rate: `source / wanted` rounded down, at least 1.

    Rates such as 23.976 count as the whole rate beside them. A source with fewer frames per second gives them all.
    """
    return max(1, int(source / wanted + 0.01))


def read_video(
    path: str | Path, *, max_frames: int | None = None, start: int = 0, fps: float | None = None
) -> tuple[NDArray[np.uint8], float]:
    """Decode a video, turned upright if a camera says so.

    Args:
        path: anything that FFmpeg reads; gifs are read with their transparency on black.
        max_frames: stop after this many frames, at least 1; all when `None`.
        start: frames skipped first, at least 0.
        fps: keep only every n-th frame after `start`, `n = frame_stride(fps of the file, fps)`; all when `None`.

    Returns:
        RGB frames `(F, H, W, 3)` uint8, and frames per second of the file.

    Raises:
        UnreadableMedia: the file is missing, damaged or cut off, is not a video, or has no frame after `start`.
    """
    path = _existing(path)
    with _explained(path), av.open(str(path)) as container:
        stream = _pictures(container, path)
        frames = list(_decoded(container, stream, path, max_frames, start, fps))
        source = _rate(stream)
    return np.stack(frames), _said(source, path)


def stream_video(
    path: str | Path, *, max_frames: int | None = None, start: int = 0, fps: float | None = None
) -> Iterator[NDArray[np.uint8]]:
    """As `read_video`, one frame `(H, W, 3)` at a time, so that a long video needs no more memory than a short one.

    Raises:
        UnreadableMedia: as `read_video`, when the frame is asked for.
    """
    path = _existing(path)
    with _explained(path), av.open(str(path)) as container:
        yield from _decoded(container, _pictures(container, path), path, max_frames, start, fps)


def _decoded(
    container: InputContainer, stream: VideoStream, path: Path, most: int | None, start: int, fps: float | None
) -> Iterator[NDArray[np.uint8]]:
    stream.thread_type = "AUTO"
    source = _rate(stream)
    stride = 1 if fps is None or source <= 0 else frame_stride(source, fps)
    last = None if most is None else start + (most - 1) * stride + 1
    index = 0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise UnreadableMedia(f"'{path}' is damaged or cut off after {index} frames", "Copy it again.")
        for frame in packet.decode():
            if index >= start and (index - start) % stride == 0 and (last is None or index < last):
                yield _upright(frame)
            index += 1
        if last is not None and index >= last:
            break
    if index <= start:
        raise UnreadableMedia(f"'{path}' has no frame {start}", f"It has {index} frames, counted from 0.")


def _pictures(container: InputContainer, path: Path) -> VideoStream:
    if not container.streams.video:
        raise UnreadableMedia(f"'{path}' has no picture track", "Give a video file.")
    return container.streams.video[0]


def probe_video(path: str | Path) -> VideoFacts:
    """Size, length and frame rate of a video; decodes its first frame only and counts the rest.

    Raises:
        UnreadableMedia: the file is missing, damaged or cut off, or is not a video.
    """
    path = _existing(path)
    first: NDArray[np.uint8] | None = None
    count = 0
    with _explained(path), av.open(str(path)) as container:
        stream = _pictures(container, path)
        fps = _rate(stream)
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise UnreadableMedia(f"'{path}' is damaged or cut off after {count} frames", "Copy it again.")
            count += packet.size > 0  # the last one is empty: it flushes the decoder
            if first is None:
                first = next((_upright(frame) for frame in packet.decode()), None)
    if first is None:
        raise UnreadableMedia(f"'{path}' has no frame", "It may be damaged.")
    height, width = first.shape[:2]
    return VideoFacts(height, width, count, _said(fps, path))


def _rate(stream: VideoStream) -> float:
    """Frames per second; 0 when the file does not say."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def _said(fps: float, path: Path) -> float:
    if fps <= 0:
        raise UnreadableMedia(f"'{path}' does not say how many frames it shows per second", "Convert it to mp4.")
    return fps


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decode a picture, turned upright if a camera says so; transparency is put on black.

    Returns:
        RGB `(H, W, 3)` uint8.

    Raises:
        UnreadableMedia: the file is missing, damaged, or not a picture.
    """
    path = _existing(path)
    with _explained(path), Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.has_transparency_data:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
        return np.array(upright.convert("RGB"))


def read_metadata(path: str | Path) -> dict[str, str]:
    """Text by key, as `VideoWriter` was given it (containers add keys of their own, such as `encoder`).

    Raises:
        UnreadableMedia: the file is missing, damaged, or neither video nor picture.
    """
    path = _existing(path)
    with _explained(path):
        if path.suffix.lower() == ".png":
            with Image.open(path) as picture:
                return {str(key): str(value) for key, value in picture.info.items() if isinstance(value, str)}
        if path.suffix.lower() == ".gif":
            return gif_comments(path)
        with av.open(str(path)) as container:
            return dict(container.metadata)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UnreadableMedia(f"'{path}' {what}", "Give the path of a picture or video.")
    return path


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    # FFmpeg takes untagged video for BT.601; our own files say BT.709 and are converted back by it.
    space = Colorspace.ITU709 if frame.colorspace == 1 else None
    pixels = frame.reformat(format="rgb24", src_colorspace=space).to_ndarray().astype(np.uint8, copy=False)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the decoders raise into an error that names the file."""
    try:
        yield
    except (av.error.FFmpegError, UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "It may be damaged, or no picture or video."
        raise UnreadableMedia(f"cannot read '{path}': {reason}", hint) from error
