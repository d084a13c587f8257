"""Plugins: the hooks they implement and the host that adopts them.

A plugin is a module named by an entry point of the group `easyanimate`:

```python
from easyanimate_core.plugins import hookimpl

@hookimpl
def easyanimate_register(registrar):
    registrar.add("samplers", "heun", "easyanimate_heun.heun:Heun", options="easyanimate_heun.options:HeunOptions")
```

Core registers its own components through the same hooks (`plugins.builtin`): it is plugin number zero.
"""

from __future__ import annotations

from easyanimate_core.plugins.hookspecs import hookimpl
from easyanimate_core.plugins.host import Host, PluginStatus, active, using

__all__ = ["Host", "PluginStatus", "active", "hookimpl", "using"]
