"""What a request will take on a device, before anything is read: memory, disk and time, and the best way to run it.

`counting` watches a computation on the meta device · `sketch` builds a model there, `releases` says how large ·
`devices` says what GPUs can do, `past` what this one did · `predict` puts them together for one placement · `choose`
compares placements · `auto` takes one.

Everything is computed from the real modules at their real sizes; speeds of devices are estimates, and times are
intervals.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from easyanimate_core.engine.planner.choose import RunPlan, plan_run
    from easyanimate_core.engine.planner.devices import Device, find_device
    from easyanimate_core.engine.planner.past import Past
    from easyanimate_core.engine.planner.predict import Interval, Prediction

__all__ = ["Device", "Interval", "Past", "Prediction", "RunPlan", "find_device", "plan_run"]

_HOMES: Final = MappingProxyType(
    {
        "Device": "devices",
        "Interval": "predict",
        "Past": "past",
        "Prediction": "predict",
        "RunPlan": "choose",
        "find_device": "devices",
        "plan_run": "choose",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'easyanimate_core.engine.planner' has no attribute '{name}'")
    return getattr(import_module(f"easyanimate_core.engine.planner.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
