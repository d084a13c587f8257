"""The conditioner `frames`: pictures that the video starts and ends with, or parts of a video that it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from easyanimate_core.conditioning.footage import footage_of, reference_of
from easyanimate_core.conditioning.inpaint import INLETS, Known, inpaint_conditions
from easyanimate_core.conditioning.picture import INLET, picture_condition, sees_pictures
from easyanimate_core.conditioning.pixels import fit_picture, read_picture
from easyanimate_core.data import Reference
from easyanimate_core.errors import InvalidRequest

if TYPE_CHECKING:
    from easyanimate_core.conditioning.options import FramesOptions
    from easyanimate_core.data import Condition, State
    from easyanimate_core.interfaces import Toolbox
    from easyanimate_core.request import GenerationRequest

__all__ = ["Frames", "known_frames"]


class Frames:
    """Feeds the inlets `mask` and `masked_video`; and `image_tokens`, where the model is shown the start picture."""

    def __init__(self, options: FramesOptions) -> None:
        self.options = options

    def inlets(self) -> tuple[str, ...]:
        """`mask` and `masked_video`, and `image_tokens` where the model has it."""
        return (*INLETS, INLET)

    def reference(self, request: GenerationRequest) -> Reference:
        """Size of the first start picture, which fits any length, or size and length of the video.

        Raises:
            UnreadableMedia: a picture, the video or the mask cannot be read.
            InvalidRequest: the mask has another size than the video.
        """
        options = self.options
        if options.video is not None:
            return reference_of(options.video, options.mask, request)
        # All are read: a picture that cannot be is found before the weights are.
        first, *_ = [read_picture(picture).shape for picture in (*options.start, *options.end)]
        return Reference(first[0], first[1])

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """`mask` and `masked_video`, each for one sample or, with noise, for every sample of the batch; `image_tokens`.

        Raises:
            UnreadableMedia: a picture or the video cannot be read.
            InvalidRequest: there are more pictures than frames, or the video is too short.
        """
        options, geometry = self.options, state.geometry
        if options.video is not None:
            known = footage_of(options.video, options.mask, state)
        else:
            size = geometry.height, geometry.width
            start, end = (
                [fit_picture(read_picture(picture), *size) for picture in pictures]
                for pictures in (options.start, options.end)
            )
            known = known_frames(start, end, geometry.frames)
        made = inpaint_conditions(known, state, toolbox, noise=options.noise)
        if options.show and options.start and sees_pictures(toolbox):
            # At the size of the video, as released models were shown it.
            made += (picture_condition(known.pixels[0, :, 0], toolbox),)
        return made


def known_frames(start: Sequence[Tensor], end: Sequence[Tensor], frames: int) -> Known:
    """A video of which the first and last frames are known; between them stands the first one.

    Args:
        start: pictures `(3, H, W)` in 0…1 of the first frames, at least one.
        end: pictures of the last frames.
        frames: length of the video.

    Raises:
        InvalidRequest: more pictures than frames.
    """
    if len(start) + len(end) > frames:
        raise InvalidRequest(
            f"'{len(start)}' pictures for the start and {len(end)} for the end do not fit into {frames} frames",
            "Give fewer pictures, or ask for more frames.",
        )
    between = [start[0]] * (frames - len(start) - len(end))
    pixels = torch.stack([*start, *between, *end], dim=1)[None]
    hidden = pixels.new_ones((1, 1, frames, *pixels.shape[-2:]))
    hidden[:, :, : len(start)] = 0
    hidden[:, :, frames - len(end) :] = 0
    return Known(pixels, hidden)
