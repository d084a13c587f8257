"""The stages that the engine puts into a plan: latents are kept before decoding, frames go straight to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import torch

from easyanimate_core.errors import InvalidPlan
from easyanimate_core.events import Notice
from easyanimate_core.interfaces import StreamsFrames, SupportsTiling
from easyanimate_core.pipeline.decode import Decode, decoded
from easyanimate_core.pipeline.settled import Settled

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import State
    from easyanimate_core.events import EventBus
    from easyanimate_core.interfaces import Stage, Toolbox, VideoVAE
    from easyanimate_core.pipeline.plan import Plan

__all__ = [
    "LATENTS",
    "DecodeToFiles",
    "KeepLatents",
    "WriteVideo",
    "begin_at_decode",
    "send_to_files",
    "streamed",
    "tiled_if_needed",
]

LATENTS: Final = "latents"
"""Name of the snapshot, and of the tensor in it."""

_Write = Callable[["Iterator[Tensor]", float, "State"], None]
"""Writes runs of frames `(B, 3, F', H, W)` in 0…1 at some frames per second, and what the state notes."""

_Describe = Callable[["State"], dict[str, object]]
"""JSON to keep beside latents."""


class KeepLatents:
    """Saves finished latents: whatever happens to their decoding, the hours before it are not lost."""

    name = "keep_latents"
    needs = frozenset({"latents"})
    gives: frozenset[str] = frozenset()
    uses: tuple[str, ...] = ()

    def __init__(self, describe: _Describe) -> None:
        self.describe = describe

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """The state as it was."""
        if state.latents is not None:
            toolbox.snapshots.save(LATENTS, {LATENTS: state.latents}, manifest=self.describe(state))
            toolbox.snapshots.drop("denoise")
        return state


class DecodeToFiles:
    """Decodes chunk by chunk along time into the encoder; no more than a chunk of frames is ever in memory.

    A device that runs out of memory is asked once more with tiles, which the VAE then keeps using.
    """

    name = Decode.name
    needs = frozenset({"latents"})
    gives: frozenset[str] = frozenset()
    uses: tuple[str, ...] = ("vae",)

    def __init__(self, write: _Write, then: Sequence[StreamsFrames] = ()) -> None:
        self.write, self.then = write, then

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """The state as it was; its frames are in files.

        Raises:
            InvalidPlan: there are no latents.
            MediaError: the files cannot be written.
            Cancelled: someone asked to stop.
        """
        latents = state.latents
        if latents is None:
            raise InvalidPlan("there are no latents to decode", "Let the stages 'noise' and 'denoise' run before.")

        def decode() -> None:
            frames = decoded(toolbox.vae, latents, state.geometry.frames, toolbox.events, toolbox.cancel)
            self.write(streamed(frames, self.then), Settled.of(state.request).fps, state)

        tiled_if_needed(decode, toolbox.vae, toolbox.events)
        return state


class WriteVideo:
    """Writes a video that the plan has made as a whole."""

    name = "write"
    needs = frozenset({"video"})
    gives: frozenset[str] = frozenset()
    uses: tuple[str, ...] = ()

    def __init__(self, write: _Write) -> None:
        self.write = write

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """The state as it was.

        Raises:
            InvalidPlan: there is no video.
            MediaError: the files cannot be written.
        """
        if state.video is None:
            raise InvalidPlan("there is no video to write", "Keep a stage that gives 'video'.")
        self.write(iter(state.video.frames.split(16, dim=2)), state.video.fps, state)
        return state


def streamed(frames: Iterator[Tensor], stages: Sequence[StreamsFrames]) -> Iterator[Tensor]:
    """Runs of frames on their way through stages."""
    for stage in stages:
        frames = stage.stream(frames)
    return frames


def tiled_if_needed(decode: Callable[[], None], vae: VideoVAE, events: EventBus) -> None:
    """Decode, and once more in tiles when the device runs out of memory.

    Raises:
        OutOfMemoryError: of torch, when tiles do not fit either, or the VAE has none.
    """
    try:
        decode()
        return
    except torch.OutOfMemoryError:
        if not isinstance(vae, SupportsTiling):
            raise
    # Outside the handler: the error's frames hold the tensors that did not fit.
    events.emit(Notice("decoding ran out of memory; trying again in tiles", "warning"))
    vae.set_tiling(True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    decode()


def send_to_files(plan: Plan, write: _Write, describe: _Describe) -> None:
    """Edit a plan so that it keeps its latents and writes its frames.

    Frames are streamed when everything after core's own decoding can work on streams; else the whole clip is made
    first, as a `Pipeline` would.
    """
    names = plan.names
    stages = {stage.name: stage for stage in plan}
    decode = stages.get(Decode.name)
    if decode is not None:
        plan.insert(KeepLatents(describe), before=Decode.name)
    after: list[Stage] = [stages[name] for name in names[names.index(Decode.name) + 1 :]] if decode is not None else []
    streaming = [stage for stage in after if isinstance(stage, StreamsFrames)]
    if isinstance(decode, Decode) and len(streaming) == len(after):
        for stage in after:
            plan.drop(stage.name)
        plan.replace(Decode.name, DecodeToFiles(write, streaming))
    else:
        plan.append(WriteVideo(write))


def begin_at_decode(plan: Plan) -> bool:
    """Take out what comes before decoding, when latents are there already; returns whether that was possible."""
    if Decode.name not in plan:
        return False
    at = plan.names.index(Decode.name)
    if not all(stage.needs <= {"latents", "video"} for stage in tuple(plan)[at:]):
        return False
    for name in plan.names[:at]:
        plan.drop(name)
    return True
