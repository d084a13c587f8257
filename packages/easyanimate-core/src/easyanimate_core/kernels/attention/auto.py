"""The fastest exact backend here, found by measuring once for each device, head width and length."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from easyanimate_core.interfaces import AttentionBackend, AttentionCall, UsesBound
from easyanimate_core.kernels.attention.backends import Cudnn, Flash, TritonAttention, call_of
from easyanimate_core.kernels.attention.reference import Sdpa

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Auto", "Verdicts", "bucket", "cache_file"]

_RUNS: Final = 3
_TOLERANCE: Final = 2e-2


def cache_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where verdicts are kept: `EASYANIMATE_HOME`, else the user's cache folder. It may not exist."""
    if said := environ.get("EASYANIMATE_HOME"):
        return Path(said).expanduser() / "attention.json"
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "easyanimate" / "attention.json"


def bucket(length: int) -> int:
    """Lengths that share a verdict: up to the next power of two."""
    return 1 << max(length - 1, 0).bit_length()


class Verdicts:
    """Which backend won, on disk: `{"H100 | torch 2.11 | cuDNN 91900 | bfloat16 | 64 | 16384": "cudnn"}`.

    A file that cannot be read or written only costs a measurement.

    Args:
        path: of the file; `cache_file()` when `None`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._path or cache_file()

    def all(self) -> dict[str, str]:
        """Everything that is known."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}

    def keep(self, key: str, name: str) -> None:
        """Add one."""
        scratch = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps({**self.all(), key: name}, indent=1, sort_keys=True), encoding="utf-8")
            scratch.replace(self.path)
        except OSError:
            with suppress(OSError):  # in a folder that cannot be written, nothing can be removed either
                scratch.unlink(missing_ok=True)


def _candidates() -> dict[str, AttentionBackend]:
    return {"sdpa": Sdpa(), "cudnn": Cudnn(), "flash": Flash(), "triton": TritonAttention()}


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """Median wall time of one run, after one that warms up."""
    run()
    times = []
    for _ in range(_RUNS):
        _wait(device)
        began = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True)
class Auto:
    """Chooses among exact backends by measuring them on the first call of its kind; lossy ones are never chosen.

    On a CPU, and where gradients are wanted, it is torch's own, unmeasured: results do not depend on the day's timings.
    A candidate that fails, or whose result is further than rounding from torch's own, is out.

    Attributes:
        candidates: by name; the first is what others are compared with, and runs everywhere.
        verdicts: what earlier processes found.
        on: kinds of device on which it measures.
        bound: of the logits, if there is one.
        picked: name by kind of call, in this process.
    """

    candidates: Mapping[str, AttentionBackend] = field(default_factory=_candidates)
    verdicts: Verdicts = field(default_factory=Verdicts)
    on: tuple[str, ...] = ("cuda",)
    bound: float | None = None
    picked: dict[str, str] = field(default_factory=dict)

    def supports(self, call: AttentionCall) -> str | None:
        """What its first candidate says."""
        return next(iter(self.candidates.values())).supports(call)

    def within(self, bound: float) -> Auto:
        """The same for bounded logits; both share what they pick."""
        return replace(self, bound=bound)

    def name_for(self, call: AttentionCall) -> str | None:
        """Who would run this call, as far as that is known."""
        first = next(iter(self.candidates))
        if call.device.partition(":")[0] not in self.on:
            return first
        key = self._key(call)
        name = self.picked.get(key) or self.verdicts.all().get(key)
        return name if name and name in self.candidates and self.candidates[name].supports(call) is None else None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`."""
        name = self.chosen(q, k, v, mask, scale)
        return self._bounded(self.candidates[name])(q, k, v, mask=mask, scale=scale)

    def chosen(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> str:
        """Who runs this call; measures if nobody knows."""
        if q.device.type not in self.on or torch.is_grad_enabled():
            return next(iter(self.candidates))
        call = call_of(q, mask)
        key = self._key(call)
        if key not in self.picked:
            name = self.name_for(call)
            if name is None:
                name = self._fastest(call, q, k, v, mask, scale)
                self.verdicts.keep(key, name)
            self.picked[key] = name
        return self.picked[key]

    def _fastest(
        self, call: AttentionCall, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None
    ) -> str:
        names = list(self.candidates)
        exact = self.candidates[names[0]](q, k, v, mask=mask, scale=scale)
        size = float(exact.float().norm())
        best, least = names[0], float("inf")
        for name in names:
            if self.candidates[name].supports(call) is not None:
                continue
            backend = self._bounded(self.candidates[name])
            try:
                off = float((backend(q, k, v, mask=mask, scale=scale) - exact).float().norm())
                if not off <= _TOLERANCE * size:
                    continue
                seconds = _seconds(lambda run=backend: run(q, k, v, mask=mask, scale=scale), q.device)  # type: ignore[misc]
            except (RuntimeError, ValueError, TypeError, ImportError):
                # Kernels of other packages fail in their own ways; the next candidate is no worse for it.
                continue
            if seconds < least:
                best, least = name, seconds
        return best

    def _bounded(self, backend: AttentionBackend) -> AttentionBackend:
        if self.bound is None or not isinstance(backend, UsesBound):
            return backend
        return backend.within(self.bound)

    def _key(self, call: AttentionCall) -> str:
        device = torch.device(call.device)
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        software = f"torch {torch.__version__} | cuDNN {torch.backends.cudnn.version()}"
        masked = " | masked" if call.masked else ""
        return f"{where} | {software} | {call.dtype} | {call.head_dim} | {bucket(call.length)}{masked}"
