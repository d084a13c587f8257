"""EasyAnimate SDK: prompts and conditions in, video out.

```python
import easyanimate_core as ea

pipe = ea.load("nano")
video = pipe(prompt="a red circle moving right on a blue background", seed=43)
video.save("circle.mp4")
```

Names below are imported when they are first used, so that importing the package loads neither torch nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from easyanimate_core.data import Video
    from easyanimate_core.errors import EasyAnimateError
    from easyanimate_core.events import CancelToken, EventBus
    from easyanimate_core.pipeline import Pipeline, load
    from easyanimate_core.plugins import Host, hookimpl, using
    from easyanimate_core.presets import Preset, find_preset
    from easyanimate_core.request import GenerationRequest, Lora, Size

    __version__: str

__all__ = [
    "CancelToken",
    "EasyAnimateError",
    "EventBus",
    "GenerationRequest",
    "Host",
    "Lora",
    "Pipeline",
    "Preset",
    "Size",
    "Video",
    "__version__",
    "find_preset",
    "hookimpl",
    "load",
    "using",
]

_HOMES: Final = MappingProxyType(
    {
        "CancelToken": "events",
        "EasyAnimateError": "errors",
        "EventBus": "events",
        "GenerationRequest": "request",
        "Host": "plugins",
        "Lora": "request",
        "Pipeline": "pipeline",
        "Preset": "presets",
        "Size": "request",
        "Video": "data",
        "find_preset": "presets",
        "hookimpl": "plugins",
        "load": "pipeline",
        "using": "plugins",
    }
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("easyanimate-core")
    if name not in _HOMES:
        raise AttributeError(f"module 'easyanimate_core' has no attribute '{name}'")
    return getattr(import_module(f"easyanimate_core.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
