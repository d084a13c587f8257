"""Long videos: how they are cut, how segments join, and how an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from easyanimate_core.conditioning.options import FramesOptions
from easyanimate_core.data import Geometry, State
from easyanimate_core.engine.snapshots import FolderSnapshots
from easyanimate_core.errors import Cancelled, ConfigError, IncompatibleConditions, InvalidRequest
from easyanimate_core.events import CancelToken, Event, EventBus, StageProgress, Step
from easyanimate_core.pipeline import Pipeline, Plan
from easyanimate_core.pipeline.long_video import Segments, crossfade, fold, last_frames, plan_segments
from easyanimate_core.vae.base import CausalCompression
from golden import Call, assert_close, load_case
from inpainting import SMALL, clip, inpainter, painter, picture, said
from recorder import PROMPT, Recorder

ROUND = CausalCompression(16).round_frames
LONG: dict[str, Any] = {**SMALL, "size": (16, 16), "steps": 1, "frames": 15, "segment_frames": 9}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return inpainter(tmp_path_factory.mktemp("inp"))


# --- cutting ---------------------------------------------------------------------------------------


@pytest.mark.feature("C042")
@pytest.mark.parametrize(
    ("total", "segment", "overlap", "frames"),
    [
        (25, 9, 4, [9, 9, 9, 9, 5]),
        (49, 25, 4, [25, 25, 9]),
        (17, 9, 4, [9, 9, 9]),
        (9, 9, 4, [9]),
        (6, 9, 4, [9]),
        (5, 9, 4, [5]),
        (10, 12, 4, [9, 5]),
        (97, 49, 4, [49, 49, 9]),
        (2, 5, 1, [5]),
    ],
)
def test_segments_make_exactly_the_frames_that_were_asked_for(
    total: int, segment: int, overlap: int, frames: list[int]
) -> None:
    found = plan_segments(total, segment, overlap, ROUND)
    assert [piece.frames for piece in found] == frames
    assert sum(piece.new for piece in found) == total
    assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True]
    assert all(ROUND(piece.frames) == piece.frames for piece in found)


@pytest.mark.feature("C042")
def test_segments_have_to_go_on() -> None:
    with pytest.raises(InvalidRequest, match="'5' frames that share 5"):
        plan_segments(20, 8, 5, ROUND)


# --- joining ---------------------------------------------------------------------------------------


@pytest.mark.feature("C042")
@pytest.mark.parametrize("call", load_case("long_video").calls, ids=str)
def test_joining_is_as_recorded(call: Call) -> None:
    """Source: tests/goldens/long_video, recorded from the reference system."""
    overlap = call.kwargs["overlap_video_length"]
    outputs: dict[str, Tensor] = {}
    video, *others = (call.inputs[f"seg{i}"] for i in range(3))
    for index, segment in enumerate(others, 1):
        outputs[f"start{index}"] = torch.from_numpy(np.stack(last_frames(video, overlap)))
        video = crossfade(video, segment, overlap)
    assert_close(call, {**outputs, "video": video})


@pytest.mark.feature("C042")
def test_the_new_segment_fades_in_from_nothing() -> None:
    joined = crossfade(torch.zeros(1, 3, 6, 1, 1), torch.ones(1, 3, 7, 1, 1), 4)
    assert joined[0, 0, :, 0, 0].tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.feature("C042")
def test_start_frames_are_truncated_to_8_bits() -> None:
    (frame,) = last_frames(torch.full((1, 3, 2, 1, 1), 0.999), 1)
    assert frame.tolist() == [[[254, 254, 254]]]


# --- making ----------------------------------------------------------------------------------------


def segments_of(pipe: Pipeline, **settings: Any) -> list[tuple[Any, ...]]:
    """Every segment that is made: prompt, frames, seed, pictures at start and end."""
    request = pipe.complete(**{**LONG, **settings})
    seen = []

    class Watch:
        """Stands before the other stages of a segment."""

        name, needs, gives = "watch", frozenset[str](), frozenset[str]()
        uses: tuple[str, ...] = ()

        def __call__(self, state: State, toolbox: Any) -> State:
            asked = state.request
            options = asked.conditions[0].options if asked.conditions else None
            pictures = (len(options.start), len(options.end)) if isinstance(options, FramesOptions) else (0, 0)
            seen.append((asked.prompt, state.geometry.frames, asked.seed, *pictures))
            return state

    (segments,) = pipe.plan(request)
    assert isinstance(segments, Segments)
    segments.plan.insert(Watch(), before="encode_text")
    pipe.walk(request, Plan([segments]))
    return seen


@pytest.mark.feature("C042")
def test_a_long_video_is_as_long_as_asked(pipe: Pipeline) -> None:
    heard = Recorder()
    video = pipe(**LONG, events=EventBus(heard))
    assert video.frames.shape == (1, 3, 15, 16, 16)
    assert video.notes["segments"] == [9, 9, 5]
    assert [event.done for event in heard if isinstance(event, StageProgress) and event.stage == "segments"] == [
        9,
        14,
        15,
    ]
    assert heard.notices == [], "the frames are made exactly"
    again = pipe(**LONG)
    assert torch.equal(again.frames, video.frames)


@pytest.mark.feature("C042")
def test_segments_go_on_from_their_predecessors_last_frames(pipe: Pipeline) -> None:
    assert segments_of(pipe) == [
        (PROMPT, 9, 7, 0, 0),
        (PROMPT, 9, 7 + 2**32, 4, 0),
        (PROMPT, 5, 7 + 2 * 2**32, 4, 0),
    ]


@pytest.mark.feature("C042", "C062")
def test_the_first_segment_is_what_an_ordinary_video_would_be(pipe: Pipeline) -> None:
    ordinary = pipe(**{**LONG, "frames": 9, "segment_frames": None})
    assert torch.equal(pipe(**LONG).frames[:, :, :6], ordinary.frames[:, :, :6]), "up to where the next one fades in"


@pytest.mark.feature("C042")
def test_segments_have_prompts_of_their_own_and_the_last_goes_on(pipe: Pipeline) -> None:
    seen = segments_of(pipe, segment_prompts=["then it stops"], segment_overlap=2, frames=20)
    assert [prompt for prompt, *_ in seen] == [PROMPT, "then it stops", "then it stops"]
    assert segments_of(pipe, segment_prompts="then it stops")[1][0] == "then it stops"


@pytest.mark.feature("C042", "C035")
def test_the_start_belongs_to_the_first_segment_and_the_end_to_the_last(pipe: Pipeline) -> None:
    seen = segments_of(pipe, conditions=[said("frames", start=picture(), end=picture(1))])
    assert [pictures for *_, pictures, _ in seen] == [1, 4, 4]
    assert [pictures for *_, pictures in seen] == [0, 0, 1]


@pytest.mark.feature("C042", "C062")
def test_every_sample_of_a_batch_goes_on_from_itself(pipe: Pipeline) -> None:
    batch = pipe(**LONG, videos_per_prompt=2)
    for index, seed in enumerate((7, 8)):
        assert torch.equal(batch.frames[index], pipe(**{**LONG, "seed": seed}).frames[0])


@pytest.mark.feature("C042")
def test_what_comes_after_the_frames_is_done_once(pipe: Pipeline) -> None:
    plan = pipe.plan(pipe.complete(**LONG, scale=2))
    assert plan.names == ("segments", "upscale")
    assert pipe(**LONG, scale=2).frames.shape == (1, 3, 15, 32, 32)
    assert fold(Plan()).names == ()


# --- going on --------------------------------------------------------------------------------------


def interrupted(
    pipe: Pipeline, folder: Path, when: Callable[[Event], bool], **settings: Any
) -> tuple[Tensor, Recorder]:
    """Cancel a run at an event, run it again with the same snapshots: its frames, and what was heard of it."""
    request, cancel = pipe.complete(**{**LONG, **settings}), CancelToken()

    def interrupt(event: Event) -> None:
        if when(event):
            cancel.cancel()

    with pytest.raises(Cancelled):
        pipe.walk(
            request, pipe.plan(request), events=EventBus(interrupt), cancel=cancel, snapshots=FolderSnapshots(folder)
        )
    heard = Recorder()
    state = pipe.walk(request, pipe.plan(request), events=EventBus(heard), snapshots=FolderSnapshots(folder))
    assert state.video is not None
    return state.video.frames, heard


@pytest.mark.feature("C042")
@pytest.mark.parametrize("stop", [9, 14])
def test_an_interrupted_video_goes_on_at_a_segment(pipe: Pipeline, tmp_path: Path, stop: int) -> None:
    def segment_is_done(event: Event) -> bool:
        return isinstance(event, StageProgress) and event.stage == "segments" and event.done == stop

    frames, heard = interrupted(pipe, tmp_path, segment_is_done)
    assert torch.equal(frames, pipe(**LONG).frames)
    assert heard.stages.count("denoise") == (2 if stop == 9 else 1)
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["segments.safetensors"]


@pytest.mark.feature("C042")
def test_an_interrupted_segment_goes_on_at_its_step(pipe: Pipeline, tmp_path: Path) -> None:
    steps = iter(range(1, 100))

    def second_segment_is_on_its_way(event: Event) -> bool:
        return isinstance(event, Step) and next(steps) == 3 + 2

    frames, heard = interrupted(pipe, tmp_path, second_segment_is_on_its_way, steps=3)
    assert torch.equal(frames, pipe(**{**LONG, "steps": 3}).frames)
    assert [event.index for event in heard if isinstance(event, Step)] == [2, 0, 1, 2]


# --- what cannot be --------------------------------------------------------------------------------


@pytest.mark.feature("C042", "C039")
@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (
            {"segment_frames": None, "segment_prompts": ["a"], "frames": 9},
            InvalidRequest,
            "'segment_prompts' are given",
        ),
        ({"segment_prompts": ["a"], "prompt": ("a", "b")}, InvalidRequest, "for '2' prompts"),
        ({"segment_prompts": [" "]}, InvalidRequest, "must not be empty"),
        ({"segment_overlap": 9}, InvalidRequest, "cannot share 9"),
        ({"segment_overlap": 0}, InvalidRequest, "'segment_overlap' is '0'"),
        ({"segment_frames": 33}, InvalidRequest, "'33' frames"),
        ({"segment_frames": None}, InvalidRequest, "'33' frames"),
        ({"conditions": [said("source-video", video=clip(5))]}, IncompatibleConditions, "'source-video'"),
        (
            {"conditions": [said("frames", video=clip(5), mask=np.zeros((32, 48)))]},
            IncompatibleConditions,
            "'frames' with a video",
        ),
    ],
)
def test_long_videos_that_cannot_be(
    pipe: Pipeline, settings: dict[str, Any], kind: type[ConfigError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        pipe(**{**LONG, "frames": 33, **settings})
    assert message in caught.value.message


@pytest.mark.feature("C042", "C039")
def test_a_model_that_cannot_go_on_from_frames(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleConditions, match="has no inlet 'mask' for 'segment_frames'"):
        painter(tmp_path)(**LONG)


def test_embeddings_are_for_one_piece(pipe: Pipeline) -> None:
    text = pipe.prepare().text_encoders[0].encode([PROMPT])
    settings = {key: value for key, value in LONG.items() if key != "prompt"}
    with pytest.raises(InvalidRequest, match="'text' is given for a long video"):
        pipe(text=text, guidance=1, **settings)


def test_the_stage_alone_needs_a_plan_that_makes_a_video(pipe: Pipeline) -> None:
    request = pipe.complete(**LONG)
    with pytest.raises(ConfigError, match="made no video"):
        Segments(Plan())(State(request, Geometry(16, 16, 15)), pipe.prepare())
