"""Plans: plugins edit them, and they are proved before weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from easyanimate_core.data import State, Video
from easyanimate_core.errors import (
    EasyAnimateError,
    OutOfMemory,
)
from easyanimate_core.events import EventBus
from easyanimate_core.interfaces import Toolbox
from easyanimate_core.pipeline import Pipeline, Plan, load
from easyanimate_core.plugins import Host, hookimpl, using
from easyanimate_core.request import GenerationRequest
from easyanimate_core.testing import write_checkpoint
from recorder import SMALL, Recorder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return load("nano", weights=folder)


class Darken:
    """A stage that a plugin might bring."""

    name = "darken"
    needs = frozenset({"video"})
    gives = frozenset({"video"})
    uses: tuple[str, ...] = ()

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        assert state.video is not None
        return state.with_(video=Video(state.video.frames / 2, state.video.fps)).noted(darkened=True)


class Editor:
    """A plugin that edits the plan as it is told."""

    def __init__(self, edit: Any) -> None:
        self.edit = edit

    @hookimpl
    def easyanimate_plan(self, plan: Plan, request: GenerationRequest) -> None:
        self.edit(plan)


def edited(edit: Any) -> Host:
    return Host(discover=False, plugins={"easyanimate-editor": Editor(edit)})


def test_a_plugin_adds_a_stage(pipe: Pipeline) -> None:
    plain = pipe(**SMALL)
    with using(edited(lambda plan: plan.insert(Darken(), after="decode"))):
        dark = pipe(**SMALL)
    assert torch.equal(dark.frames, plain.frames / 2)
    assert dark.notes["darkened"] is True


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda plan: plan.insert(Darken(), before="noise"), "'darken' needs 'video'"),
        (lambda plan: plan.drop("noise"), "'denoise' needs 'latents'"),
        (lambda plan: plan.drop("decoed"), "'decoed'"),
        (lambda plan: [plan.append(Darken()), plan.append(Darken())], "two stages are called 'darken'"),
        (lambda plan: plan.insert(Darken()), "place of stage 'darken'"),
        (lambda plan: plan.replace("decode", plan.__iter__().__next__()), "two stages are called 'encode_text'"),
    ],
)
def test_a_bad_plan_is_refused_before_weights_are_read(folder: Path, edit: Any, said: str) -> None:
    heard = Recorder()
    with using(edited(edit)), pytest.raises(EasyAnimateError, match=said):
        load("nano", weights=folder)(**SMALL, events=EventBus(heard))
    assert heard == []


def test_a_plan_without_video_is_an_error(pipe: Pipeline) -> None:
    with using(edited(lambda plan: plan.drop("decode"))), pytest.raises(EasyAnimateError, match="made no video"):
        pipe(**SMALL)


def test_a_failed_edit_leaves_the_plan_as_it_was() -> None:
    plan = Plan([Darken()])
    with pytest.raises(EasyAnimateError):
        plan.replace("lighten", Darken())
    assert (str(plan), len(plan), "darken" in plan) == ("darken", 1, True)


class Greedy(Darken):
    name = "greedy"

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_running_out_of_memory_says_where(pipe: Pipeline) -> None:
    with using(edited(lambda plan: plan.append(Greedy()))), pytest.raises(OutOfMemory, match="'greedy'") as caught:
        pipe(**SMALL)
    assert "fewer frames" in caught.value.hint
