"""A given video at the size, length and frame rate of the result, and the mask that belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from easyanimate_core.conditioning.inpaint import Known
from easyanimate_core.conditioning.masks import hidden_where_white, mask_size, read_mask
from easyanimate_core.conditioning.pixels import fit_clip, probe, read_clip
from easyanimate_core.data import Reference
from easyanimate_core.errors import InvalidRequest, UnreadableMedia
from easyanimate_core.media.read import frame_stride

if TYPE_CHECKING:
    from easyanimate_core.data import State
    from easyanimate_core.request import GenerationRequest

__all__ = ["footage_of", "reference_of"]


def reference_of(video: Any, mask: Any | None, request: GenerationRequest) -> Reference:
    """Size of a video, and its length at the request's frame rate.

    A source with fewer frames per second than the request gives every frame: it plays faster, and a notice says so.

    Args:
        video: a `Clip`.
        mask: a `MaskMedia`, or `None`.
        request: says the frame rate.

    Raises:
        UnreadableMedia: one of them cannot be read.
        InvalidRequest: the mask has another size than the video.
    """
    fps, facts = _rate(request), probe(video)
    if mask is not None and (size := mask_size(mask)) != (facts.height, facts.width):
        raise InvalidRequest(
            f"the mask is '{size[0]}x{size[1]}' and the video {facts.height}x{facts.width}",
            "Paint the mask on the video's size.",
        )
    notice = ""
    if 0 < facts.fps < fps - 0.01:
        notice = (
            f"the video has {facts.fps:g} frames/s, fewer than {fps:g}: it plays {fps / facts.fps:.3g} times as fast"
        )
    kept = -(-facts.frames // frame_stride(facts.fps, fps))
    return Reference(facts.height, facts.width, kept, notice)


def footage_of(video: Any, mask: Any | None, state: State) -> Known:
    """A video at the state's geometry, with what its mask hides; without a mask everything is hidden.

    Raises:
        UnreadableMedia: one of them cannot be read, or the video is shorter than the result.
        InvalidRequest: a mask video is shorter than the result.
    """
    geometry, fps = state.geometry, _rate(state.request)
    frames = read_clip(video, fps=fps, frames=geometry.frames).frames
    if len(frames) < geometry.frames:
        raise UnreadableMedia(
            f"the video has '{len(frames)}' frames at {fps:g} frames/s, and {geometry.frames} are made",
            f"Ask for {len(frames)} frames or fewer.",
        )
    pixels = fit_clip(frames, geometry.height, geometry.width)[None]
    if mask is None:
        return Known(pixels, torch.ones_like(pixels[:, :1]))
    painted = read_mask(mask, fps=fps, frames=geometry.frames)
    return Known(pixels, hidden_where_white(painted, geometry.frames, geometry.height, geometry.width))


def _rate(request: GenerationRequest) -> float:
    if request.fps is None:
        raise InvalidRequest("the request leaves 'fps' open", "Complete it: preset.complete(request).")
    return request.fps
