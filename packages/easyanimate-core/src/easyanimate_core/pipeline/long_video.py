"""Long videos: overlapping segments, each continuing from the last frames of the one before, cross-faded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from easyanimate_core.conditioning.options import FramesOptions
from easyanimate_core.data import Geometry, State, Video
from easyanimate_core.errors import IncompatibleConditions, InvalidPlan, InvalidRequest
from easyanimate_core.events import StageProgress
from easyanimate_core.media.write import to_uint8
from easyanimate_core.pipeline.plan import Plan
from easyanimate_core.pipeline.walk import run
from easyanimate_core.schema import Choice
from easyanimate_core.slots import CONDITIONERS

if TYPE_CHECKING:
    from easyanimate_core.interfaces import Conditioner, Snapshots, Toolbox
    from easyanimate_core.request import GenerationRequest

__all__ = ["Segment", "Segments", "check_segments", "crossfade", "fold", "last_frames", "plan_segments"]

# Seeds of a batch are neighbours, and drawn seeds are below 2³²: segments stay clear of both.
_SEED_STRIDE: Final = 2**32
_SEEDS: Final = 2**63


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a long video.

    Attributes:
        index: from 0.
        frames: how many are made, those of the overlap included.
        new: how many of them make the video longer.
        last: nothing follows.
    """

    index: int
    frames: int
    new: int
    last: bool


def plan_segments(total: int, segment: int, overlap: int, round_frames: Callable[[int], int]) -> tuple[Segment, ...]:
    """Cut a length into segments that overlap.

    The last segment is rounded up to what the VAE can make, and what is too much is cut off: there are exactly
    `total` frames. (The original rounds down, and gives 15 frames for 17 in segments of 9.)

    Args:
        total: frames of the whole.
        segment: frames of a segment; rounded down to what the VAE can make.
        overlap: frames that a segment shares with the one before.
        round_frames: the VAE's; see `interfaces.Compression`.

    Raises:
        InvalidRequest: segments would not go on.
    """
    most = round_frames(segment)
    if most <= overlap:
        raise InvalidRequest(
            f"segments of '{most}' frames that share {overlap} make no new ones", "Choose longer segments."
        )
    found: list[Segment] = []
    done = 0
    while done < total:
        shared = overlap if found else 0
        frames = min(most, _rounded_up(total - done + shared, round_frames))
        new = min(frames - shared, total - done)
        done += new
        found.append(Segment(len(found), frames, new, done == total))
    return tuple(found)


def crossfade(before: Tensor, after: Tensor, overlap: int) -> Tensor:
    """Two videos `(B, 3, F, H, W)` as one whose `overlap` shared frames change over linearly: weight `i / overlap`
    of the second one in frame `i`, from 0."""
    weight = (torch.arange(overlap, dtype=before.dtype) / overlap).reshape(1, 1, -1, 1, 1)
    shared = before[:, :, -overlap:] * (1 - weight) + after[:, :, :overlap] * weight
    return torch.cat([before[:, :, :-overlap], shared, after[:, :, overlap:]], dim=2)


def last_frames(video: Tensor, count: int) -> tuple[Any, ...]:
    """The last frames of a video `(1, 3, F, H, W)` in 0…1 as pictures `(H, W, 3)` uint8, truncated as when written."""
    return tuple(to_uint8(video[0, :, -count:].permute(1, 2, 3, 0)))


class Segments:
    """Walks along a plan once per segment and joins what comes out.

    Each sample of a batch is made on its own: it goes on from its own frames. After every segment the video so far
    goes into the toolbox's snapshots, and an interrupted run goes on from there.

    Args:
        plan: what makes one segment; ends with a video.
    """

    name = "segments"
    needs: frozenset[str] = frozenset()
    gives = frozenset({"video"})
    uses: tuple[str, ...] = ()

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """Fills `video` with exactly the frames of the state's geometry.

        Raises:
            InvalidRequest: segments would not go on.
            InvalidPlan: the inner plan makes no video.
        """
        request = state.request
        assert request.segment_frames is not None
        segments = plan_segments(
            state.geometry.frames, request.segment_frames, request.segment_overlap, toolbox.vae.compression.round_frames
        )
        made = []
        for sample in range(request.batch):
            alone = _of_sample(request, sample)
            scope = toolbox.snapshots.within(f"sample-{sample}")
            made.append(self._made(alone, segments, state.geometry, toolbox, scope))
        assert request.fps is not None
        video = Video(torch.cat(made), request.fps)
        return state.with_(video=video).noted(segments=[segment.frames for segment in segments])

    def _made(
        self,
        request: GenerationRequest,
        segments: tuple[Segment, ...],
        geometry: Geometry,
        toolbox: Toolbox,
        snapshots: Snapshots,
    ) -> Tensor:
        """The joined frames `(1, 3, F, H, W)` of one sample."""
        kept = snapshots.load(self.name)
        joined = None if kept is None else kept.tensors["frames"]
        done = 0 if kept is None else int(kept.notes["done"])
        for segment in segments[done:]:
            scope = f"segment-{segment.index}"
            asked = _of_segment(request, segment, joined)
            size = replace(geometry, frames=segment.frames, batch=1)
            video = run(self.plan, State(asked, size), replace(toolbox, snapshots=snapshots.within(scope))).video
            if video is None:
                raise InvalidPlan(f"the plan made no video (plan: {self.plan})", "Keep a stage that gives 'video'.")
            whole = video.frames if joined is None else crossfade(joined, video.frames, request.segment_overlap)
            joined = whole[:, :, : (0 if joined is None else joined.shape[2]) + segment.new]
            snapshots.save(self.name, {"frames": joined}, done=segment.index + 1)
            snapshots.drop(scope)
            toolbox.events.emit(StageProgress(self.name, joined.shape[2], geometry.frames, "frames"))
        assert joined is not None
        return joined


def fold(plan: Plan) -> Plan:
    """A plan whose stages up to the first video run once per segment, and those after it once, on the whole."""
    stages = tuple(plan)
    makers = [i for i, stage in enumerate(stages) if "video" in stage.gives - stage.needs]
    if not makers:
        return plan
    cut = makers[0] + 1
    return Plan([Segments(Plan(stages[:cut])), *stages[cut:]])


def check_segments(request: GenerationRequest) -> None:
    """Refuse what a long video cannot do.

    Raises:
        InvalidRequest: prompts of segments without segments, or for several prompts; an overlap that is too long.
        IncompatibleConditions: a condition that is not cut into segments.
    """
    if request.segment_frames is None:
        if request.segment_prompts:
            raise InvalidRequest("'segment_prompts' are given, and no 'segment_frames'", "Say how long a segment is.")
        return
    if request.segment_prompts and len(request.prompts) > 1:
        raise InvalidRequest(
            f"'segment_prompts' are given for '{len(request.prompts)}' prompts", "Give one prompt, or none of them."
        )
    if request.segment_overlap >= request.segment_frames:
        raise InvalidRequest(
            f"segments of '{request.segment_frames}' frames cannot share {request.segment_overlap}",
            "Choose longer segments, or a shorter overlap.",
        )
    for choice in request.conditions:
        if not isinstance(choice.options, FramesOptions) or choice.options.video is not None:
            raise IncompatibleConditions(
                f"a long video cannot have the condition '{choice.name}'" + (" with a video" if choice.options else ""),
                "It can have pictures to start and end with: the 'start' and 'end' of 'frames'.",
            )


def _rounded_up(frames: int, round_frames: Callable[[int], int]) -> int:
    while round_frames(frames) < frames:
        frames += 1
    return frames


def _of_sample(request: GenerationRequest, sample: int) -> GenerationRequest:
    """One sample of a batch as a request of its own."""
    prompt = request.prompts[sample // request.videos_per_prompt]
    return request.model_copy(update={"prompt": prompt, "seed": request.sample_seeds()[sample], "videos_per_prompt": 1})


def _of_segment(request: GenerationRequest, segment: Segment, before: Tensor | None) -> GenerationRequest:
    """What to ask for one segment; the first is what an ordinary video of its length would be."""
    assert request.seed is not None
    prompts = (request.prompts[0], *request.segment_prompts)
    return request.model_copy(
        update={
            "prompt": prompts[min(segment.index, len(prompts) - 1)],
            "frames": segment.frames,
            "seed": (request.seed + segment.index * _SEED_STRIDE) % _SEEDS,
            "conditions": _conditions(request, segment, before),
            "segment_frames": None,
            "segment_prompts": (),
        }
    )


def _conditions(request: GenerationRequest, segment: Segment, before: Tensor | None) -> tuple[Choice[Conditioner], ...]:
    given = next((c.options for c in request.conditions if isinstance(c.options, FramesOptions)), None)
    start = given.start if given is not None else ()
    if before is not None:
        start = last_frames(before, request.segment_overlap)
    if not start:
        return ()
    end = given.end if given is not None and segment.last else ()
    noise = {} if given is None else {"noise": given.noise}
    return (Choice.of(CONDITIONERS, FramesOptions(start=start, end=end, **noise)),)
