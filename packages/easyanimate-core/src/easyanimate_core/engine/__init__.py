"""Jobs that never lose work: a store that survives crashes, runs that go on where they stopped, manifests.

```python
from easyanimate_core.engine import Engine
from easyanimate_core.request import GenerationRequest

engine = Engine()
job = engine.submit(GenerationRequest(prompt="a red circle moving right"), output="circle.mp4")
engine.run(job.id)
```

Names are imported when they are first used: listing jobs loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from easyanimate_core.engine.engine import Engine
    from easyanimate_core.engine.job import Job, JobSpec
    from easyanimate_core.engine.manifest import Manifest, read_manifest
    from easyanimate_core.engine.store import JobStore

__all__ = ["Engine", "Job", "JobSpec", "JobStore", "Manifest", "read_manifest"]

_HOMES: Final = MappingProxyType(
    {
        "Engine": "engine",
        "Job": "job",
        "JobSpec": "job",
        "JobStore": "store",
        "Manifest": "manifest",
        "read_manifest": "manifest",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'easyanimate_core.engine' has no attribute '{name}'")
    return getattr(import_module(f"easyanimate_core.engine.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
