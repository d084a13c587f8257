"""`Pipeline`: a request in, a video out; and the walk along a plan that it is made of."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from easyanimate_core.data import State, Video
from easyanimate_core.errors import InvalidPlan, InvalidRequest
from easyanimate_core.events import SILENT, CancelToken, EventBus
from easyanimate_core.interfaces import (
    KeepsNothing,
    OffloadStrategy,
    Snapshots,
    Stage,
    Storage,
    SupportsTiling,
    Toolbox,
)
from easyanimate_core.pipeline.assemble import Assembly, locate, pick_device, pick_dtype
from easyanimate_core.pipeline.attending import choose_attention, use_attention
from easyanimate_core.pipeline.fit import check_conditions, fitted, sized
from easyanimate_core.pipeline.given_text import GivenText, given_text, in_place_of_prompts
from easyanimate_core.pipeline.long_video import check_segments, fold
from easyanimate_core.pipeline.loras import PipelineLoras, with_loaded
from easyanimate_core.pipeline.options import UpscaleOptions
from easyanimate_core.pipeline.plan import Plan
from easyanimate_core.pipeline.walk import run
from easyanimate_core.placing import LetsBlocksStay, memory_mode
from easyanimate_core.plugins import active
from easyanimate_core.presets import Preset, find_preset, read_config
from easyanimate_core.registry import Registry
from easyanimate_core.request import GenerationRequest, Lora
from easyanimate_core.schema import Choice, parse
from easyanimate_core.slots import OFFLOAD, STAGES, STORAGE

if TYPE_CHECKING:
    from easyanimate_core.engine.planner.auto import Decision

__all__ = ["Pipeline", "default_plan", "load"]

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

    def __init__(self, assembly: Assembly, *, loras: Sequence[Lora] = ()) -> None:
        self.preset: Preset = assembly.preset
        self.assembly = assembly
        self._toolbox: Toolbox | None = None
        self._decided: Decision | None = None
        self._always = tuple(loras)
        self._loras = PipelineLoras()
        self._loras.check(self._always)
        self._lock = threading.RLock()

    def __call__(
        self,
        request: GenerationRequest | None = None,
        *,
        text: GivenText | None = None,
        negative_text: GivenText | None = None,
        events: EventBus = SILENT,
        cancel: CancelToken | None = None,
        **settings: Any,
    ) -> Video:
        """Make the video, or the batch of videos, that the request describes.

        Args:
            request: what to make; or leave it out and give its fields as keywords.
            text: embeddings instead of prompts: one for each text encoder, with a sample for each prompt.
            negative_text: the same for the unguided half; needed with `text` unless guidance is 1.
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
        if text is not None and request is None:
            settings = {"prompt": in_place_of_prompts(text, settings), **settings}
        asked = self.complete(request, **settings)
        plan = self.plan(asked)
        device, dtype = self.assembly.device, self.assembly.dtype
        given = given_text(text, negative_text, asked, device=device, dtype=dtype)
        state = self.walk(asked, plan, events=active().wire(events), cancel=cancel, **given)
        if state.video is None:
            raise InvalidPlan(f"the plan made no video (plan: {plan})", "Keep a stage that gives 'video'.")
        told = {"request": asked.model_dump(mode="json"), "seeds": list(asked.sample_seeds())}
        notes = {**state.video.notes, **state.notes, **told}
        return replace(state.video, notes=notes)

    def walk(
        self,
        request: GenerationRequest,
        plan: Plan,
        *,
        events: EventBus = SILENT,
        cancel: CancelToken | None = None,
        snapshots: Snapshots | None = None,
        **given: Any,
    ) -> State:
        """Walk along a plan of the caller's own, and return all that is known at its end.

        Args:
            request: as `complete` gives it.
            plan: as `plan` gives it, perhaps with stages taken out or put in.
            events: hears what happens; `active().wire(…)` lets plugins hear it too.
            cancel: stops the run at its next check.
            snapshots: where stages keep what they should not do twice; nowhere when `None`.
            given: fields of the state that are there before the first stage, for example `latents`.

        Raises:
            CheckpointError: the weights do not fit.
            ExecutionError: running failed, was cancelled, or the chosen attention cannot run here.
        """
        with self._lock:
            self._loras.check(request.loras)
            attention = choose_attention(request, self.assembly.device, self.assembly.dtype)
            self.settle(request, events)
            loaded = self.prepare(events, cancel)
            self._loras.use(request.loras, loaded, events)
            assert request.sampler is not None  # complete() decided
            toolbox = replace(
                loaded,
                sampler=self.assembly.sampler(request.sampler),
                events=events,
                cancel=cancel or CancelToken(),
                snapshots=snapshots or KeepsNothing(),
                attention=use_attention(attention, loaded.denoiser),
                apart=self._decided is not None and self._decided.apart,
            )
            geometry = fitted(request, self.preset, toolbox.vae.compression, events)
            return run(plan, State(request, geometry, **given), toolbox)

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
        # A preset of the caller's own is in no registry: its name is enough.
        named = "model" in request.model_fields_set and request.model != self.preset.name
        if named and find_preset(request.model).name != self.preset.name:
            raise InvalidRequest(
                f"the request is for the model '{request.model}', this pipeline is '{self.preset.name}'",
                f"Load it: easyanimate_core.load('{request.model}').",
            )
        request = with_loaded(request, self.assembly, self._always)
        check_conditions(request, self.preset)
        check_segments(request)
        return sized(self.preset.complete(request.model_copy(update={"model": self.preset.name})), self.preset)

    def plan(self, request: GenerationRequest) -> Plan:
        """What a run of this request will do, after all plugins have had their say, checked. Reads no weights.

        Raises:
            InvalidPlan: the stages do not fit.
        """
        plan = default_plan(request)
        active().plan(plan, request)
        if request.segment_frames is not None:
            plan = fold(plan)
        plan.check()
        return plan

    def settle(self, request: GenerationRequest, events: EventBus = SILENT) -> None:
        """Decide what `auto` means for this request, before weights are read; says so in a `Notice`.

        A later request of another size may be placed otherwise.

        Raises:
            OutOfMemory: it fits in no way.
        """
        from easyanimate_core.engine.planner.auto import settled

        with self._lock:
            self._decided = settled(self.assembly, self._decided, request, events)
            chosen, loaded = self._decided.assembly, self._toolbox
            if loaded is not None and chosen.offload != self.assembly.offload:
                loaded.offload.detach()
                self._toolbox = loaded = replace(loaded, offload=chosen.offload.create())
                loaded.offload.attach(loaded, chosen.device)
            self.assembly = chosen
            self._tile()

    def placement(self) -> dict[str, Any]:
        """What followed from offload and storage in the last run, for manifests; see `engine.manifest.Ran`."""
        decided, loaded = self._decided, self._toolbox
        found: dict[str, Any] = {name: bool(getattr(decided, name, False)) for name in ("tiled", "apart")}
        if loaded is not None and isinstance(loaded.offload, LetsBlocksStay):
            found["staying"] = {role: list(counts) for role, counts in loaded.offload.blocks_staying().items()}
        return found

    def _tile(self) -> None:
        """Decode in tiles where that was decided."""
        vae: Any = None if self._toolbox is None else self._toolbox.vae
        if self._decided is not None and self._decided.tiled and isinstance(vae, SupportsTiling):
            vae.set_tiling(True)

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
                if self._decided is None:
                    self.settle(self.complete(prompt="any"), events)
                with events.span("load"):
                    self._toolbox = self.assembly.build(events)
                self._tile()
            return self._toolbox


def load(
    model: str | Preset = "nano",
    *,
    weights: str | Path | None = None,
    transformer_path: str | Path | None = None,
    vae_path: str | Path | None = None,
    motion_path: str | Path | None = None,
    config: str | Path | None = None,
    loras: Sequence[Lora | str | Path | tuple[str | Path, float] | Mapping[str, Any]] = (),
    offload: str | dict[str, Any] | Choice[OffloadStrategy] = "auto",
    storage: str | dict[str, Any] | Choice[Storage] = "auto",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    events: EventBus = SILENT,
) -> Pipeline:
    """A pipeline for a model.

    Args:
        model: name of a preset, or a preset.
        weights: folder of the weights in the released layout; default: where the preset says.
        transformer_path: file or folder of another denoiser instead of the model's own, in any known layout.
        vae_path: the same for the VAE.
        motion_path: file or folder of a motion module, which makes a video model of an image model.
        config: one of the original's model configs (YAML), whose settings stand above the model's own.
        loras: LoRA files for every run, as `"path"`, `"path=weight"` or `(path, weight)`; a request can add others.
        offload: where weights are while they are not used.
        storage: type in which weights are kept; the original's three memory modes, given as `offload`, decide both.
        device: where to compute; default: CUDA if there is a device, else the CPU.
        dtype: of weights and latents; default: bfloat16 on CUDA, float32 on the CPU.
        events: hears, as warnings, what of `config` is left out.

    Raises:
        UnknownComponent: no such preset, offload or storage.
        CheckpointNotFound: the weights, or parts of them, are not there.
        InvalidRequest: no such device or dtype.
    """
    preset = model if isinstance(model, Preset) else find_preset(model)
    if config is not None:
        preset = read_config(config, events).applied(preset)
    place = pick_device(device)
    modes = _modes(offload, storage)
    assembly = Assembly(
        preset=preset,
        folder=locate(preset, weights),
        offload=Choice.of(OFFLOAD, modes["offload"]),
        storage=Choice.of(STORAGE, modes["storage"]),
        device=place,
        dtype=pick_dtype(dtype, place),
        transformer_path=None if transformer_path is None else Path(transformer_path).expanduser(),
        vae_path=None if vae_path is None else Path(vae_path).expanduser(),
        motion_path=None if motion_path is None else Path(motion_path).expanduser(),
        config=None if config is None else Path(config).expanduser(),
    )
    assembly.check()
    return Pipeline(assembly, loras=[Lora.of(lora) for lora in loras])


def _modes(offload: object, storage: object) -> dict[str, Any]:
    """Where weights are and in which type, also from the name of one of the original's memory modes."""
    try:
        return memory_mode({"offload": offload, "storage": storage})
    except ValueError as error:
        raise InvalidRequest(str(error), "Leave the storage out.") from error


def default_plan(request: GenerationRequest) -> Plan:
    """The stages that every generation goes through, and `upscale` when the request asks for it."""
    stages: Registry[Stage] = active().registries[STAGES]
    plan = Plan(stages.create(name) for name in _DEFAULT)
    if request.match_colours:
        plan.append(stages.create("match_colours"))
    if request.scale > 1:
        plan.append(stages.create("upscale", UpscaleOptions(scale=request.scale)))
    return plan
