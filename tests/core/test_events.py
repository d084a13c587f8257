"""Events are frozen and JSON-able; the bus hands them to everyone; the token stops a run from any thread."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest

from easyanimate_core import events
from easyanimate_core.errors import Cancelled, InvalidRequest
from easyanimate_core.events import (
    SILENT,
    CancelToken,
    Event,
    EventBus,
    JobFailed,
    JobFinished,
    JobStarted,
    Metric,
    Notice,
    StageFinished,
    StageProgress,
    StageStarted,
    Step,
)

ONE_OF_EACH = [
    JobStarted("job-1", ("encode_text", "denoise"), {"prompt": "a red circle"}),
    StageStarted("denoise"),
    StageProgress("decode", 4, 17, "frames"),
    Step(0, 10, preview=lambda: None),
    StageFinished("denoise", 1.5, peak_bytes=1024),
    Metric("loss", 0.25, step=3),
    Notice("size rounded down to 384x672", level="warning"),
    JobFinished("job-1", 2.0, ("lake.mp4",)),
    JobFailed("job-1", "OutOfMemory", "the device is full", "Use offload='model'."),
]


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_an_event_is_frozen_and_becomes_a_json_object(event: Event):
    said = json.loads(json.dumps(event.as_json()))
    assert said["event"] == type(event).__name__
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, "other")


def test_every_event_class_is_tried_above():
    kinds = [getattr(events, name) for name in events.__all__]
    classes = {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Event)} - {Event}
    assert classes == {type(event) for event in ONE_OF_EACH}


def test_a_preview_is_called_only_when_asked_and_never_serialised():
    called = []
    step = Step(2, 10, preview=lambda: called.append(1))
    assert "preview" not in step.as_json()
    assert step == Step(2, 10)
    assert not called


@pytest.mark.feature("C031")
def test_subscribers_hear_every_event_in_order_until_they_leave():
    heard: list[tuple[str, Event]] = []
    bus = EventBus(lambda event: heard.append(("first", event)))
    leave = bus.subscribe(lambda event: heard.append(("second", event)))
    one, two = Step(0, 2), Step(1, 2)
    bus.emit(one)
    leave()
    bus.emit(two)
    assert heard == [("first", one), ("second", one), ("first", two)]


def test_a_span_reports_start_end_time_and_peak():
    heard: list[Event] = []
    bus = EventBus(heard.append)
    with bus.span("decode", peak_bytes=lambda: 2048):
        bus.emit(StageProgress("decode", 1))
    start, _, end = heard
    assert start == StageStarted("decode")
    assert isinstance(end, StageFinished)
    assert end.stage == "decode"
    assert end.seconds >= 0
    assert end.peak_bytes == 2048


def test_a_span_that_fails_is_not_finished():
    heard: list[Event] = []
    with pytest.raises(ZeroDivisionError), EventBus(heard.append).span("denoise"):
        _ = 1 / 0
    assert heard == [StageStarted("denoise")]


def test_the_silent_bus_cannot_get_subscribers():
    SILENT.emit(Step(0, 1))
    with pytest.raises(TypeError, match="EventBus"):
        SILENT.subscribe(lambda event: None)
    assert SILENT.subscribers == ()


def test_a_failure_keeps_message_and_hint_apart():
    assert JobFailed.of("a", InvalidRequest("the size is '1x1'", "Choose 64x64.")) == JobFailed(
        "a", "InvalidRequest", "the size is '1x1'", "Choose 64x64."
    )
    assert JobFailed.of("a", KeyError("x")).message == "'x'"


@pytest.mark.feature("C031")
def test_a_token_cancels_across_threads():
    token = CancelToken()
    token.check()
    assert not token.cancelled
    thread = threading.Thread(target=token.cancel)
    thread.start()
    thread.join()
    assert token.cancelled
    with pytest.raises(Cancelled):
        token.check()
