"""`Pipeline`: a request in, a video out; and the walk along a plan that it is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from easyanimate_core.data import Geometry, State, Video
from easyanimate_core.errors import IncompatibleConditions, InvalidPlan, InvalidRequest, OutOfMemory
from easyanimate_core.events import SILENT, CancelToken, EventBus, Notice
from easyanimate_core.interfaces import Compression, OffloadStrategy, Stage, Toolbox
from easyanimate_core.pipeline.assemble import Assembly, locate, pick_device, pick_dtype
from easyanimate_core.pipeline.options import UpscaleOptions
from easyanimate_core.pipeline.plan import Plan
from easyanimate_core.plugins import active
from easyanimate_core.presets import Preset, find_preset
from easyanimate_core.registry import Registry
from easyanimate_core.request import GenerationRequest, Size
from easyanimate_core.schema import Choice, parse
from easyanimate_core.slots import CONDITIONERS, OFFLOAD, STAGES, STORAGE

__all__ = ["Pipeline", "default_plan", "load", "run"]

_DEFAULT = ("encode_text", "condition", "noise", "denoise", "decode")


class Pipeline:
    """Makes videos with one model.

    Weights are read when the first video is made, after its request and plan have been checked; `prepare` reads
    them at once. One run at a time: calls from several threads wait for each other.

    ```python
    pipe = load("nano")
    video = pipe(prompt="a red circle moving right on a blue background", seed=43)
    ```

    Attributes:
        preset: what the model is.
        assembly: which weights, and where they go.
    """

    def __init__(self, assembly: Assembly) -> None:
        self.preset: Preset = assembly.preset
        self.assembly = assembly
        self._toolbox: Toolbox | None = None
        self._lock = threading.RLock()

    def __call__(
        self,
        request: GenerationRequest | None = None,
        *,
        events: EventBus = SILENT,
        cancel: CancelToken | None = None,
        **settings: Any,
    ) -> Video:
        """Make the video, or the batch of videos, that the request describes.

        Args:
            request: what to make; or leave it out and give its fields as keywords.
            events: hears what happens.
            cancel: stops the run at its next check.
            settings: fields of `GenerationRequest`: `prompt`, `frames`, `size`, `seed`…

        Returns:
            Frames `(B, 3, F, H, W)` in 0…1, prompts × videos per prompt samples.

        Raises:
            ConfigError: the request or the plan is wrong; no weights have been read.
            CheckpointError: the weights do not fit.
            ExecutionError: running failed, or was cancelled.
        """
        asked = self.complete(request, **settings)
        events = active().wire(events)
        plan = self.plan(asked)
        with self._lock:
            loaded = self.prepare(events, cancel)
            assert asked.sampler is not None  # complete() decided
            toolbox = replace(
                loaded, sampler=self.assembly.sampler(asked.sampler), events=events, cancel=cancel or CancelToken()
            )
            geometry = _fitted(asked, self.preset, toolbox.vae.compression, events)
            state = run(plan, State(asked, geometry), toolbox)
        if state.video is None:
            raise InvalidPlan(f"the plan made no video (plan: {plan})", "Keep a stage that gives 'video'.")
        told = {"request": asked.model_dump(mode="json"), "seeds": list(asked.sample_seeds())}
        notes = {**state.video.notes, **state.notes, **told}
        return replace(state.video, notes=notes)

    def complete(self, request: GenerationRequest | None = None, **settings: Any) -> GenerationRequest:
        """The request with every open choice decided by the preset, checked against the model's limits.

        Raises:
            InvalidRequest: it is not for this model, or both a request and settings are given.
        """
        if request is not None and settings:
            raise InvalidRequest(
                f"a request and also '{next(iter(settings))}' are given", "Give a request, or its fields as keywords."
            )
        if request is None:
            request = parse(GenerationRequest, {"model": self.preset.name, **settings}, InvalidRequest)
        if "model" in request.model_fields_set and find_preset(request.model).name != self.preset.name:
            raise InvalidRequest(
                f"the request is for the model '{request.model}', this pipeline is '{self.preset.name}'",
                f"Load it: easyanimate_core.load('{request.model}').",
            )
        _check_conditions(request, self.preset)
        return self.preset.complete(request.model_copy(update={"model": self.preset.name}))

    def plan(self, request: GenerationRequest) -> Plan:
        """What a run of this request will do, after all plugins have had their say, checked. Reads no weights.

        Raises:
            InvalidPlan: the stages do not fit.
        """
        plan = default_plan(request)
        active().plan(plan, request)
        plan.check()
        return plan

    def prepare(self, events: EventBus = SILENT, cancel: CancelToken | None = None) -> Toolbox:
        """Read the weights now, if that has not happened yet; returns the components.

        Raises:
            CheckpointError: the weights do not fit.
            Cancelled: someone asked to stop; checked before reading.
        """
        with self._lock:
            if self._toolbox is None:
                if cancel is not None:
                    cancel.check()
                with events.span("load"):
                    self._toolbox = self.assembly.build(events)
            return self._toolbox


def load(
    model: str | Preset = "nano",
    *,
    weights: str | Path | None = None,
    offload: str | dict[str, Any] | Choice[OffloadStrategy] = "auto",
    storage: str | dict[str, Any] | Choice[Any] = "auto",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> Pipeline:
    """A pipeline for a model.

    Args:
        model: name of a preset, or a preset.
        weights: folder of the weights in the released layout; default: where the preset says.
        offload: where weights are while they are not used.
        storage: type in which weights are kept.
        device: where to compute; default: CUDA if there is a device, else the CPU.
        dtype: of weights and latents; default: bfloat16 on CUDA, float32 on the CPU.

    Raises:
        UnknownComponent: no such preset, offload or storage.
        CheckpointNotFound: the weights, or parts of them, are not there.
        InvalidRequest: no such device or dtype.
    """
    preset = model if isinstance(model, Preset) else find_preset(model)
    place = pick_device(device)
    assembly = Assembly(
        preset=preset,
        folder=locate(preset, weights),
        offload=Choice.of(OFFLOAD, offload),
        storage=Choice.of(STORAGE, storage),
        device=place,
        dtype=pick_dtype(dtype, place),
    )
    assembly.check()
    return Pipeline(assembly)


def default_plan(request: GenerationRequest) -> Plan:
    """The stages that every generation goes through, and `upscale` when the request asks for it."""
    stages: Registry[Stage] = active().registries[STAGES]
    plan = Plan(stages.create(name) for name in _DEFAULT)
    if request.match_colours:
        plan.append(stages.create("match_colours"))
    if request.scale > 1:
        plan.append(stages.create("upscale", UpscaleOptions(scale=request.scale)))
    return plan


def run(plan: Plan, state: State, toolbox: Toolbox) -> State:
    """Walk along a plan. A stage that could only fill what the state already holds is left out.

    A state may thus bring its own embeddings (`text`, `negative_text`) or `latents`: the stages that would make
    them do not run.

    Raises:
        InvalidPlan: a stage would not find what it needs.
        OutOfMemory: the device is too small.
        Cancelled: someone asked to stop.
    """
    given = _filled(state)
    todo = Plan(stage for stage in plan if not (made := stage.gives - stage.needs) or not made <= given)
    todo.check(given)
    for stage in todo:
        toolbox.cancel.check()
        peak = _memory_peak(toolbox.device)
        with torch.no_grad(), toolbox.events.span(stage.name, peak_bytes=peak), toolbox.offload.using(*stage.uses):
            try:
                state = stage(state, toolbox)
            except torch.OutOfMemoryError as error:
                raise OutOfMemory(
                    f"the device '{toolbox.device}' ran out of memory in the stage '{stage.name}'",
                    "Ask for fewer frames or a smaller size, or for an offload strategy that needs less memory.",
                ) from error
    return state


def _filled(state: State) -> frozenset[str]:
    """The fields of a state that hold something."""
    fields = ("text", "negative_text", "conditions", "latents", "video")
    return frozenset(name for name in fields if getattr(state, name) not in (None, ()))


def _memory_peak(device: torch.device) -> Callable[[], int | None]:
    """Start measuring now; the result tells the most bytes that a CUDA device held since, `None` elsewhere."""
    if device.type != "cuda":
        return lambda: None
    torch.cuda.reset_peak_memory_stats(device)
    return lambda: torch.cuda.max_memory_allocated(device)


def _fitted(request: GenerationRequest, preset: Preset, compression: Compression, events: EventBus) -> Geometry:
    """The size that will really be made; a `Notice` says where it differs from what was asked."""
    assert request.size is not None  # complete() decided
    assert request.frames is not None
    size = preset.limits.fit(request.size)
    frames = compression.round_frames(preset.limits.fit_frames(request.frames))
    if size != Size(height=request.size.height, width=request.size.width):
        multiple = preset.limits.size_multiple
        events.emit(Notice(f"the size {request.size} becomes {size}: sides are multiples of {multiple} pixels"))
    if frames != request.frames:
        step = preset.limits.frames_step
        events.emit(Notice(f"{request.frames} frames become {frames}: this model makes multiples of {step}, plus 1"))
    return Geometry(size.height, size.width, frames, request.batch)


def _check_conditions(request: GenerationRequest, preset: Preset) -> None:
    """Refuse a condition that the model has no inlet for, by the tags of its entry; imports nothing.

    Raises:
        IncompatibleConditions: so it is.
    """
    known = [inlet.name for inlet in preset.inlets]
    for choice in request.conditions:
        tags = active().registries[CONDITIONERS].get(choice.qualified).tags
        feeds = sorted(tag.removeprefix("inlet:") for tag in tags if tag.startswith("inlet:"))
        if lost := [name for name in feeds if name not in known]:
            raise IncompatibleConditions(
                f"the model '{preset.name}' has no inlet '{lost[0]}' for '{choice.name}' "
                f"(it has: {', '.join(['text', *known])})",
                "Pick a model trained with that condition: easyanimate presets list.",
            )
