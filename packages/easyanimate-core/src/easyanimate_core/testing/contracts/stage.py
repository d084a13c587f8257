"""The contract of the slot `stages`."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from easyanimate_core.data import State
from easyanimate_core.errors import EasyAnimateError
from easyanimate_core.interfaces import StreamsFrames
from easyanimate_core.testing.contracts.contract import Contract, can, close, ensure, rule
from easyanimate_core.testing.toolbox import tiny_request, tiny_state, tiny_toolbox, walked

if TYPE_CHECKING:
    from easyanimate_core.interfaces import Toolbox

__all__ = ["StageContract"]


class StageContract(Contract):
    """A `Stage`: it needs and gives what it says, and changes no state but the one it returns.

    Attributes:
        options: of the stage.
        request: fields of `GenerationRequest` in place of those of `tiny_request`.
    """

    slot: ClassVar[str] = "stages"
    request: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def filled(self) -> tuple[State, Toolbox]:
        """A state in which all that a stage may need is there, after a tiny run, and the run's toolbox."""
        request, toolbox = tiny_request(**self.request), _toolbox()
        return walked(request, toolbox), toolbox

    def emptied(self) -> State:
        """A filled state without what the stage gives and does not need."""
        state, _ = self.filled()
        stage, blank = self.create(), tiny_state(state.request)
        return state.with_(**{name: getattr(blank, name) for name in stage.gives - stage.needs})

    @rule
    def test_it_says_what_it_needs_and_gives(self) -> None:
        """A stage has a name, and sets of the state's fields that it needs and gives; `uses` names roles.

        If this fails: `needs` and `gives` are frozensets of names such as `latents`; `uses` is a tuple of `text`,
        `image`, `denoiser` and `vae`.
        """
        stage = self.create()
        known = {field.name for field in fields(State)}
        ensure(isinstance(stage.name, str) and stage.name.strip() != "", f"the name is '{stage.name!r}'")
        for label, names in (("needs", stage.needs), ("gives", stage.gives)):
            ensure(isinstance(names, frozenset), f"'{label}' is a '{type(names).__name__}'")
            ensure(names <= known, f"'{label}' names '{sorted(names - known)}', which no state has")
        roles = {"text", "image", "denoiser", "vae"}
        ensure(set(stage.uses) <= roles, f"'uses' names '{sorted(set(stage.uses) - roles)}'")

    @rule
    def test_it_gives_what_it_says(self) -> None:
        """After the stage every field that it gives is filled, and the state before it is as it was.

        If this fails: return `state.with_(…)`; `conditions` may stay empty, everything else may not.
        """
        stage, before = self.create(), self.emptied()
        kept = {field.name: getattr(before, field.name) for field in fields(State)}
        with torch.no_grad():
            after = stage(before, self.filled()[1])
        ensure(isinstance(after, State), f"it returns a '{type(after).__name__}'")
        for name in stage.gives - {"conditions"}:
            ensure(getattr(after, name) not in (None, ()), f"'{name}' is empty")
        same = all(getattr(before, name) is value for name, value in kept.items())
        ensure(same, "the state that it was given has changed")
        ensure(after.request is before.request, "it changes the request")

    @rule
    def test_it_refuses_what_it_cannot_do(self) -> None:
        """Without a field that it needs, it raises an error of the SDK.

        If this fails: a plan is checked before it runs, but a stage can be called without one: raise `InvalidPlan`.
        """
        stage, (state, toolbox) = self.create(), self.filled()
        for name in sorted(stage.needs):
            try:
                with torch.no_grad():
                    stage(state.with_(**{name: getattr(tiny_state(state.request), name)}), toolbox)
            except EasyAnimateError:
                continue
            ensure(False, f"no error without '{name}'")

    @rule
    def test_running_repeats(self) -> None:
        """The same state gives the same latents and frames, bit by bit.

        If this fails: draw from generators made of the request's seeds.
        """
        state, toolbox = self.emptied(), self.filled()[1]
        with torch.no_grad():
            one, two = (self.create()(state, toolbox) for _ in range(2))
        if one.latents is not None:
            close(two.latents, one.latents, 0, "the latents of a repeat")
        if one.video is not None:
            close(two.video.frames, one.video.frames, 0, "the frames of a repeat")

    @rule
    def test_streamed_frames_are_those_of_the_whole(self) -> None:
        """Frames that pass run by run become what the whole clip becomes. Optional: `StreamsFrames`.

        If this fails: what a run needs of those before it must be kept inside `stream`.
        """
        stage, (state, toolbox) = self.create(), self.filled()
        if not can(stage, StreamsFrames):
            raise unittest.SkipTest("it does not work while frames pass")
        assert state.video is not None
        with torch.no_grad():
            whole = stage(state, toolbox).video.frames
            chunks = iter(state.video.frames.split([1, 3, state.video.frames.shape[2] - 4], dim=2))
            streamed = torch.cat(list(stage.stream(chunks)), dim=2)
        close(streamed, whole, 1e-6, "the stream")


@cache
def _toolbox() -> Toolbox:
    """One model for all rules: nothing may change it."""
    return tiny_toolbox()
