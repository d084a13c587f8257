"""Ops with a torch definition beside every fast path.

```
kernels/ada_norm/__init__.py     the op: signature, docstring
kernels/ada_norm/reference.py    the definition, any device, differentiable
kernels/ada_norm/triton.py       the fast path; imported only when chosen
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from easyanimate_core.kernels.op import Wanted, unavailable, use, wanted

__all__ = ["NAMES", "Wanted", "unavailable", "use", "wanted"]

NAMES: Final = (
    "ada_norm",
    "attention",
    "gate_residual_norm",
    "group_norm_silu",
    "qk_norm_rope",
    "scaled_linear",
)
"""The ops, each a subpackage."""


def __getattr__(name: str) -> Any:
    # Resolved when it is used: options of attention backends live below, and reading them must not load torch.
    if name not in ("Wanted", "unavailable", "use", "wanted"):
        raise AttributeError(f"module 'easyanimate_core.kernels' has no attribute '{name}'")
    return getattr(import_module("easyanimate_core.kernels.op"), name)
