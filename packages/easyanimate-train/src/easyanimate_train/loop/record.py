"""Where a run's numbers go: `metrics.jsonl`, events, and TensorBoard when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from easyanimate_core.errors import ConfigError
from easyanimate_core.events import Metric

if TYPE_CHECKING:
    from pathlib import Path

    from easyanimate_core.events import EventBus

__all__ = ["Recorder"]


class Recorder:
    """Writes one line of numbers at a time. Use it as a context manager.

    Args:
        folder: gets `metrics.jsonl` and, with TensorBoard, `tensorboard/`.
        events: hears a `Metric` for every number.
        tensorboard: also write TensorBoard events.

    Raises:
        ConfigError: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, events: EventBus, *, tensorboard: bool) -> None:
        self._path = folder / "metrics.jsonl"
        self._events = events
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard.writer import SummaryWriter
            except ImportError as error:
                raise ConfigError(
                    "the recipe asks for TensorBoard, which is not installed",
                    "pip install 'easyanimate-train[tensorboard]', or set tensorboard = false.",
                ) from error
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the numbers of an optimiser step (counted from 1)."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.emit(Metric(name, value, step))
            if self._board is not None:
                self._board.add_scalar(name, value, step)
