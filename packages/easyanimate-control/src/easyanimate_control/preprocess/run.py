"""A preprocessor over a file: in parts, with progress, and nothing left behind when it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from easyanimate_core.conditioning.pixels import is_video
from easyanimate_core.errors import EasyAnimateError, ExecutionError
from easyanimate_core.events import SILENT, CancelToken, EventBus, StageProgress
from easyanimate_core.media.paths import check_writable
from easyanimate_core.media.read import frame_stride, probe_video, read_image, stream_video
from easyanimate_core.media.write import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from easyanimate_control.slots import Preprocessor

__all__ = ["STAGE", "apply", "preprocess_file"]

STAGE = "preprocess"
"""Name under which progress is reported."""

_PART = 8  # frames


def preprocess_file(
    source: str | Path,
    target: str | Path,
    preprocessor: Preprocessor,
    *,
    fps: float | None = None,
    frames: int | None = None,
    overwrite: bool = False,
    events: EventBus = SILENT,
    cancel: CancelToken | None = None,
) -> Path:
    """Make the control video of a video, or the control picture of a picture.

    Args:
        source: video or picture.
        target: `.mp4`, `.gif`, or `.png` for one frame.
        preprocessor: what to make of it.
        fps: thin the video out to this frame rate; as many as it has when `None`.
        frames: at most this many.
        overwrite: replace an existing file.
        events: hear `StageProgress` in frames.
        cancel: stops between parts of eight frames.

    Returns:
        The path of the finished file.

    Raises:
        UnreadableMedia: the source cannot be read.
        MediaError: the target cannot be written.
        ExecutionError: the preprocessor did not give a control video of the same shape.
        Cancelled: so it was; no file is left.
    """
    moving = is_video(str(source))
    total, rate = 1, 1.0
    if moving:
        facts = probe_video(source)
        stride = 1 if fps is None else frame_stride(facts.fps, fps)
        total = min(-(-facts.frames // stride), frames or facts.frames)
        rate = fps if fps is not None and fps < facts.fps else facts.fps
    check_writable(target, overwrite, frames=total)
    parts = _parts(source, fps, frames) if moving else iter([read_image(source)[None]])
    with events.span(STAGE), VideoWriter(target, fps=rate, overwrite=overwrite) as writer:
        for part in parts:
            (cancel or CancelToken()).check()
            given = torch.from_numpy(part).movedim(-1, 1).float() / 255
            # The bytes that edges and depths were before: truncating 0.999 would darken them.
            made = (apply(preprocessor, given) * 255).round().to(torch.uint8)
            writer.write(made.movedim(1, -1).contiguous())
            events.emit(StageProgress(STAGE, writer.frames, total, "frames"))
    return writer.path


def apply(preprocessor: Preprocessor, frames: Tensor) -> Tensor:
    """Call a preprocessor, and see that it keeps its contract.

    Args:
        preprocessor: anybody's.
        frames: `(F, 3, H, W)` in 0…1.

    Raises:
        ExecutionError: it raised an error of its own, or gave another shape or values outside 0…1.
    """
    try:
        made = preprocessor(frames)
    except EasyAnimateError:
        raise
    except Exception as error:
        name = type(preprocessor).__name__
        raise ExecutionError(f"the preprocessor '{name}' failed: {error!r}", "Try another one.") from error
    if tuple(made.shape) != tuple(frames.shape) or not bool((made >= 0).all() & (made <= 1).all()):
        raise ExecutionError(
            f"the preprocessor '{type(preprocessor).__name__}' made '{tuple(made.shape)}' of {tuple(frames.shape)}",
            "It has to give frames of the same shape, in 0…1.",
        )
    return made


def _parts(source: str | Path, fps: float | None, frames: int | None) -> Iterator[NDArray[np.uint8]]:
    part: list[NDArray[np.uint8]] = []
    for frame in stream_video(source, fps=fps, max_frames=frames):
        part.append(frame)
        if len(part) == _PART:
            yield np.stack(part)
            part = []
    if part:
        yield np.stack(part)
