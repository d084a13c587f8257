"""From a request to the pipeline that can run it."""

from __future__ import annotations

from typing import Any, Final

from easyanimate_core.events import SILENT, EventBus
from easyanimate_core.pipeline.pipeline import Pipeline, load
from easyanimate_core.request import GenerationRequest

__all__ = ["load_for", "load_settings"]

_LOADED: Final = ("model", "weights", "transformer_path", "vae_path", "motion_path", "config", "offload", "storage")
"""Settings of a request that decide what is loaded, and where it goes; the others may differ from run to run."""


def load_for(
    request: GenerationRequest, *, device: str | None = None, dtype: str | None = None, events: EventBus = SILENT
) -> Pipeline:
    """A new pipeline for a request; `events` hears what `load` has to tell.

    Raises:
        CheckpointError: weights are missing or do not fit.
        InvalidRequest: no such device or dtype.
    """
    return load(**_arguments(request), device=device, dtype=dtype, events=events)


def load_settings(request: GenerationRequest) -> dict[str, Any]:
    """What decides which weights are loaded and where they go, as JSON."""
    return request.model_dump(mode="json", include=set(_arguments(request)))


def _arguments(request: GenerationRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in _LOADED}
