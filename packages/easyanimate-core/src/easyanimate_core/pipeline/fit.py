"""The size that is really made: from the request, the pictures and videos that it names, and the VAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from easyanimate_core.data import Geometry, Reference
from easyanimate_core.errors import IncompatibleConditions, InvalidRequest
from easyanimate_core.events import Notice
from easyanimate_core.interfaces import HasReference
from easyanimate_core.media.resize import bucket_size
from easyanimate_core.plugins import active
from easyanimate_core.presets import all_presets
from easyanimate_core.request import Size
from easyanimate_core.slots import CONDITIONERS

if TYPE_CHECKING:
    from easyanimate_core.events import EventBus
    from easyanimate_core.interfaces import Compression
    from easyanimate_core.presets import Preset
    from easyanimate_core.request import GenerationRequest

__all__ = ["check_conditions", "fitted", "sized", "whole_frames"]

# Neighbouring ratio buckets differ by up to a sixth: a reference may be off by half of that either way.
_UNSEEN: Final = 1.09


def check_conditions(request: GenerationRequest, preset: Preset) -> None:
    """Refuse conditions that the model has no inlet for, or that share one, by the tags of their entries.

    Raises:
        IncompatibleConditions: so it is.
    """
    fed: set[str] = set()
    for choice in request.conditions:
        feeds = _inlets(choice.qualified, choice.name, preset)
        if twice := sorted(feeds & fed):
            raise IncompatibleConditions(f"two conditions feed the inlet '{twice[0]}'", "Give it only one.")
        fed |= feeds
    if request.segment_frames is not None:
        _inlets("frames", "segment_frames", preset)  # given frames are how a segment goes on from the one before


def _inlets(qualified: str, name: str, preset: Preset) -> set[str]:
    """The inlets that a conditioner feeds, all of which the model has."""
    known = [inlet.name for inlet in preset.inlets]
    tags = active().registries[CONDITIONERS].get(qualified).tags
    feeds = {tag.removeprefix("inlet:") for tag in tags if tag.startswith("inlet:")}
    if lost := sorted(feeds - set(known)):
        raise IncompatibleConditions(
            f"the model '{preset.name}' has no inlet '{lost[0]}' for '{name}' (it has: {', '.join(['text', *known])})",
            f"Pick a model trained with that condition: {_trained_with(feeds)}",
        )
    return feeds


def _trained_with(feeds: set[str]) -> str:
    """Models that have these inlets: those that come with a package before those that are downloads."""
    found = [preset for preset in all_presets() if feeds <= {inlet.name for inlet in preset.inlets}]
    names = [preset.name for preset in sorted(found, key=lambda preset: preset.bundled is None)]
    return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else "easyanimate presets list."


def sized(request: GenerationRequest, preset: Preset) -> GenerationRequest:
    """The request with a size, from its first picture or video where it gives a `resolution`.

    Reads the head of every file that a condition names, so that a wrong one is found before the weights are read.

    Raises:
        UnreadableMedia: a picture or video cannot be read.
        InvalidRequest: there is nothing to take the ratio from, or the size is not for this model.
    """
    found = _references(request)
    if request.resolution is None:
        return request
    if not found:
        raise InvalidRequest(
            f"'resolution' is '{request.resolution}', and no condition has a picture or video to take the ratio from",
            "Give the size instead, or a condition such as 'frames'.",
        )
    height, width = bucket_size(found[0].height, found[0].width, request.resolution)
    limits = preset.limits
    if min(height, width) < limits.size_min or max(height, width) > limits.size_max:
        raise InvalidRequest(
            f"'resolution' is '{request.resolution}', which makes {height}x{width} of the reference's ratio; "
            f"this model makes {limits.size_min} to {limits.size_max} pixels a side",
            "Choose another resolution, or give the size.",
        )
    return request.model_copy(update={"size": Size(height=height, width=width), "resolution": None})


def fitted(request: GenerationRequest, preset: Preset, compression: Compression, events: EventBus) -> Geometry:
    """The size that will really be made; a `Notice` says where it differs from what was asked.

    A long video keeps the frames that were asked for: its segments are rounded, it is not.

    Raises:
        InvalidRequest: size or frames are not for this model; see `whole_frames`.
    """
    assert request.size is not None  # complete() decided
    assert request.frames is not None
    size = preset.limits.fit(request.size)
    if size != Size(height=request.size.height, width=request.size.width):
        multiple = preset.limits.size_multiple
        events.emit(Notice(f"the size {request.size} becomes {size}: sides are multiples of {multiple} pixels"))
    found = _references(request)
    _tell_of_ratios(found, size, events)
    if request.segment_frames is not None:
        return Geometry(size.height, size.width, request.frames, request.batch)
    asked = _as_long_as(found, request.frames, events)
    frames = whole_frames(asked, preset, compression)
    if frames != asked:
        step = preset.limits.frames_step
        makes = f"multiples of {step}, plus 1" if step > 1 else "runs of a fixed length"
        events.emit(Notice(f"{asked} frames become {frames}: this model makes {makes}"))
    return Geometry(size.height, size.width, frames, request.batch)


def whole_frames(frames: int, preset: Preset, compression: Compression) -> int:
    """The frames that are made where so many are asked for: by the model's limits, then by the VAE's runs.

    Raises:
        InvalidRequest: they are more than the model makes; or several, and fewer than one run of the VAE: the one
            frame that could be made of them would be a picture, which nobody asked for.
    """
    fitting = preset.limits.fit_frames(frames)
    whole = compression.round_frames(fitting)
    if whole == 1 < fitting:
        lengths = range(fitting, preset.limits.frames_max + 1)
        fewest = next((length for length in lengths if compression.round_frames(length) > 1), None)
        hint = "Ask for 1, a picture" + (f", or for {fewest} or more." if fewest is not None else ".")
        raise InvalidRequest(f"'{frames}' frames are too few for a video of this model", hint)
    return whole


def _tell_of_ratios(found: list[Reference], size: Size, events: EventBus) -> None:
    """A notice when the first picture or video will be stretched."""
    if not found:
        return
    stretched = (size.height / size.width) / (found[0].height / found[0].width)
    if not 1 / _UNSEEN <= stretched <= _UNSEEN:
        given = f"{found[0].height}x{found[0].width}"
        events.emit(Notice(f"{given} is stretched to {size}; 'resolution' in place of a size keeps its ratio"))


def _as_long_as(found: list[Reference], frames: int, events: EventBus) -> int:
    """Frames that were asked for, or fewer where a given video has fewer."""
    for reference in found:
        if reference.notice:
            events.emit(Notice(reference.notice))
        if reference.frames is not None and reference.frames < frames:
            events.emit(Notice(f"{frames} frames become {reference.frames}: the given video has no more"))
            frames = reference.frames
    return frames


def _references(request: GenerationRequest) -> list[Reference]:
    """What is known about the given pictures and videos, in the order of the conditions."""
    conditioners = [choice.create() for choice in request.conditions]
    found = [conditioner.reference(request) for conditioner in conditioners if isinstance(conditioner, HasReference)]
    return [reference for reference in found if reference is not None]
