"""The step caches of a run, one in front of the other, and the network at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.events import Notice
from easyanimate_core.stepping import CacheMemory, DenoiserCall

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import State
    from easyanimate_core.events import EventBus
    from easyanimate_core.interfaces import Denoiser
    from easyanimate_core.schema import Choice
    from easyanimate_core.stepping import Predict, StepCache

__all__ = ["CacheChain"]


class CacheChain:
    """Step caches of one run; without any, the network alone.

    Args:
        choices: the first is asked first.
        denoiser: the model.
        total: steps of the run.
        network: computes what no cache answers.

    Raises:
        InvalidRequest: two of them look into the network, or one does not go with the model.
    """

    def __init__(
        self,
        choices: Sequence[Choice[StepCache]],
        denoiser: Denoiser,
        total: int,
        network: Predict = DenoiserCall.computed,
    ) -> None:
        self._network = network
        made = [(choice.name, choice.create()) for choice in choices]
        inside = [name for name, cache in made if cache.innermost]
        if len(inside) > 1:
            raise InvalidRequest(
                f"the step caches '{inside[0]}' and '{inside[1]}' cannot work together", "Both replace the blocks."
            )
        # Stable: those in front keep their order.
        self._caches = sorted(made, key=lambda named: named[1].innermost)
        for _, cache in self._caches:
            cache.begin(denoiser, total)

    def predict(self, call: DenoiserCall) -> Tensor:
        """The answer `(B or 2·B, C, f, h, w)` of the first cache, or of whoever it asks."""
        return self._asked(0, call)

    def _asked(self, place: int, call: DenoiserCall) -> Tensor:
        if place == len(self._caches):
            return self._network(call)
        return self._caches[place][1].predict(call, lambda inner: self._asked(place + 1, inner))

    @property
    def resumable(self) -> bool:
        """Whether a run can go on in the middle: all caches can say what they remember."""
        return all(isinstance(cache, CacheMemory) for _, cache in self._caches)

    def remembered(self) -> dict[str, Tensor]:
        """What all caches remember, under names of their own."""
        found: dict[str, Tensor] = {}
        for place, (name, cache) in enumerate(self._caches):
            if isinstance(cache, CacheMemory):
                found |= {f"cache.{place}.{name}.{key}": value for key, value in cache.remembered().items()}
        return found

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `remembered` gave, among other tensors."""
        for place, (name, cache) in enumerate(self._caches):
            prefix = f"cache.{place}.{name}."
            if isinstance(cache, CacheMemory):
                cache.recall({key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)})

    def told(self, state: State, events: EventBus) -> State:
        """The state with what every cache did in its notes; says the same in a `Notice`."""
        if not self._caches:
            return state
        reports = {name: cache.report() for name, cache in self._caches}
        for name, report in reports.items():
            events.emit(Notice(f"step cache {name} {report}"))
        return state.noted(step_caches={name: report.as_json() for name, report in reports.items()})
