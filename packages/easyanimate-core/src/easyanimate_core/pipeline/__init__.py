"""One pipeline for every generation and task: a plan of stages over a toolbox of components.

Names are imported when they are first used: the options of stages must load without torch.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from easyanimate_core.pipeline.pipeline import Pipeline, default_plan, load
    from easyanimate_core.pipeline.plan import Plan
    from easyanimate_core.pipeline.walk import run

__all__ = ["Pipeline", "Plan", "default_plan", "load", "run"]

_HOMES: Final = MappingProxyType(
    {"Pipeline": "pipeline", "Plan": "plan", "default_plan": "pipeline", "load": "pipeline", "run": "walk"}
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'easyanimate_core.pipeline' has no attribute '{name}'")
    return getattr(import_module(f"easyanimate_core.pipeline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
