"""Which LoRAs and which other weights a run uses: what the pipeline was loaded with, and what the request adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from torch import nn

from easyanimate_core.checkpoints.lora import LoraStack, locate_lora
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.events import EventBus, Notice
from easyanimate_core.interfaces import Toolbox
from easyanimate_core.pipeline.assemble import Assembly
from easyanimate_core.request import GenerationRequest, Lora

__all__ = ["PipelineLoras", "with_loaded"]

# Weights that a request may name, and what there is when it does not.
_OTHERS: Final[Mapping[str, str]] = MappingProxyType(
    {"transformer_path": "the model’s own", "vae_path": "the model’s own", "motion_path": "none", "config": "none"}
)


def with_loaded(request: GenerationRequest, assembly: Assembly, always: Sequence[Lora]) -> GenerationRequest:
    """The request with what the pipeline was loaded with, so that it tells the whole: other weights, and LoRAs.

    A LoRA of the pipeline that the request names with the same weight counts once.

    Raises:
        InvalidRequest: the request names a denoiser, VAE or motion module that is not the loaded one.
    """
    changes: dict[str, Any] = {"loras": tuple(dict.fromkeys((*always, *request.loras)))}
    for name, own in _OTHERS.items():
        loaded, asked = getattr(assembly, name), getattr(request, name)
        if asked is not None and (loaded is None or Path(asked).expanduser() != loaded):
            raise InvalidRequest(
                f"the request's {name} is '{asked}', this pipeline was loaded with '{loaded or own}'",
                f"Load it: easyanimate_core.load('{assembly.preset.name}', {name}='{asked}').",
            )
        changes[name] = asked or (str(loaded) if loaded is not None else None)
    return request.model_copy(update=changes)


class PipelineLoras:
    """Attaches LoRAs before a run and keeps them for the next one that wants the same."""

    def __init__(self) -> None:
        self._stack: LoraStack | None = None

    def check(self, wanted: Sequence[Lora]) -> None:
        """Prove that the files are there, before weights are read.

        Raises:
            CheckpointNotFound: one is not.
        """
        for lora in wanted:
            locate_lora(lora.path)

    def use(self, wanted: Sequence[Lora], toolbox: Toolbox, events: EventBus) -> None:
        """Attach what this run wants, with its weights, and detach everything else.

        Raises:
            CheckpointError: a LoRA does not fit the model.
        """
        asked = [(lora.path, lora.weight) for lora in wanted]
        if self._stack is None:
            if not asked:
                return
            modules = {role: module for role, module in toolbox.modules().items() if isinstance(module, nn.Module)}
            self._stack = LoraStack({role: modules[role] for role in modules if role != "vae"}, toolbox.dtype)

        def say(report: str, complete: bool) -> None:
            events.emit(Notice(report, "info" if complete else "warning"))

        if {Path(path).expanduser() for path, _ in asked} == set(self._stack.paths):
            self._stack.use(asked, say)
            return
        # A strategy holds modules as it found them; it has to see the new ones.
        toolbox.offload.detach()
        try:
            self._stack.use(asked, say)
        finally:
            toolbox.offload.attach(toolbox, toolbox.device)
