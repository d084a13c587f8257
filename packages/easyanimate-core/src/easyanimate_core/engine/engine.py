"""The engine: orders in, finished files out, and nothing lost in between. Python, CLI, HTTP and UI share it."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyanimate_core.engine.job import Job, JobSpec
from easyanimate_core.engine.store import JobStore
from easyanimate_core.events import SILENT, CancelToken, EventBus, JobFailed, JobFinished
from easyanimate_core.presets import find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import parse

if TYPE_CHECKING:
    from easyanimate_core.engine.files import Made
    from easyanimate_core.pipeline import Pipeline

__all__ = ["Engine"]


class Engine:
    """Runs the jobs of one store, and keeps the last used models loaded.

    Making one loads no torch; running a job does.

    Args:
        store: where jobs are kept; by default that of the user's data folder.
        keep_models: how many pipelines stay loaded, at least 1.

    Raises:
        ExecutionError: the store cannot be opened.
    """

    def __init__(self, store: JobStore | None = None, *, keep_models: int = 1) -> None:
        self.store = store or JobStore()
        self._keep = keep_models
        self._pipelines: OrderedDict[str, Pipeline] = OrderedDict()

    def submit(self, request: GenerationRequest, *, batch: str = "", key: str = "", **order: Any) -> Job:
        """Queue a request, completed by its preset, with a seed of its own.

        Args:
            request: what to make.
            batch: a name that jobs which belong together share.
            key: which entry of the batch it is.
            order: other fields of `JobSpec`: `output`, `overwrite`, `manifest`, `device`…

        Raises:
            ConfigError: the request is not for its model, or the order does not validate.
        """
        complete = find_preset(request.model).complete(request)
        spec = parse(
            JobSpec, {"folder": str(Path.cwd()), **order, "request": complete.model_dump(mode="json")}, of="the job"
        )
        return self.store.add(spec, batch=batch, key=key)

    def run(self, number: int, *, events: EventBus = SILENT, cancel: CancelToken | None = None) -> tuple[Made, ...]:
        """Run a job now, or go on where it stopped.

        Args:
            number: of the job.
            events: hears what happens.
            cancel: stops the run at its next step, block or tile; `JobStore.cancel` does the same from elsewhere.

        Returns:
            One file and manifest per video of the request.

        Raises:
            InvalidRequest: the job is done, or runs elsewhere.
            EasyAnimateError: the run failed; the job says so and can run again.
        """
        with events.span("start"):  # importing torch and transformers takes seconds
            from easyanimate_core.engine.run import run_job
        try:
            with self.store.running(number) as job:
                made, seconds = run_job(job, self, events, cancel or CancelToken())
                outputs = tuple(str(item.path.absolute()) for item in made)
                self.store.report(number, outputs=outputs)
        except Exception as error:
            events.emit(JobFailed.of(str(number), error))
            raise
        events.emit(JobFinished(str(number), seconds, outputs))
        return made

    def run_next(self, *, events: EventBus = SILENT, cancel: CancelToken | None = None) -> int | None:
        """Run the job that has been queued longest; returns its number, or `None` when nothing is queued.

        Raises:
            EasyAnimateError: the run failed.
        """
        number = self.store.next_queued()
        if number is not None:
            self.run(number, events=events, cancel=cancel)
        return number

    def pipeline(
        self,
        request: GenerationRequest,
        *,
        device: str | None = None,
        dtype: str | None = None,
        events: EventBus = SILENT,
    ) -> Pipeline:
        """The pipeline for a request: the one of last time, if it wants the same weights in the same place.

        Args:
            request: what to make.
            device: where to compute; the best at hand when `None`.
            dtype: of weights and latents; as the device suggests when `None`.
            events: hears what a new one has to tell.

        Raises:
            CheckpointError: weights are missing or do not fit.
            InvalidRequest: no such device or dtype.
        """
        from easyanimate_core.engine.models import load_for, load_settings

        settings = {**load_settings(request), "device": device, "dtype": dtype}
        key = json.dumps(settings, sort_keys=True, default=str)
        if key not in self._pipelines:
            while len(self._pipelines) >= self._keep:
                self._pipelines.popitem(last=False)  # before loading: two models may not fit
            self._pipelines[key] = load_for(request, device=device, dtype=dtype, events=events)
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def close(self) -> None:
        """Let go of all models."""
        self._pipelines.clear()
