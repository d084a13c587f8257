"""Both halves of guidance as one batch, or one after the other where the device is too small for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easyanimate_core.events import Notice

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.events import EventBus
    from easyanimate_core.stepping import DenoiserCall

__all__ = ["Halves"]


class Halves:
    """Computes calls of one run, and remembers when a whole batch did not fit.

    One batch is faster, two passes need half the memory of activations. The first call that runs out of memory is
    computed again in two passes, and so are all later ones; a sample's result depends on its batch by rounding at most.

    Args:
        events: hears of the change in a `Notice`.
        apart: in two passes from the beginning.
    """

    def __init__(self, events: EventBus, *, apart: bool = False) -> None:
        self._events = events
        self._apart = apart

    def predict(self, call: DenoiserCall) -> Tensor:
        """The network's answer, `(2·B, C, f, h, w)` when the call is guided.

        Raises:
            torch.OutOfMemoryError: half of it does not fit either.
        """
        if not self._apart:
            try:
                return call.computed()
            except torch.OutOfMemoryError:
                if not call.guided:
                    raise
            self._apart = True
            self._events.emit(Notice("both halves of guidance do not fit at once: one after the other from now on"))
            # Only now, after the error and what it held is gone.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if not call.guided:
            return call.computed()
        return torch.cat([call.unguided().computed(), call.conditional().computed()])
