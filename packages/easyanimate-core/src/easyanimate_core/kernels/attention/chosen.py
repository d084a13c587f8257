"""The backend that somebody chose: refuses what it cannot do, and knows what ran."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easyanimate_core.errors import KernelUnavailable
from easyanimate_core.interfaces import AttentionBackend, AttentionCall, UsesBound
from easyanimate_core.kernels.attention.auto import Auto
from easyanimate_core.kernels.attention.backends import call_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ChosenAttention"]


@dataclass(frozen=True, slots=True)
class ChosenAttention:
    """A backend under the name by which it was chosen. Nothing else ever runs in its place.

    Attributes:
        name: as registered.
        backend: does the work.
        ran: names of what has run, in order; of `auto`, what it picked.
    """

    name: str
    backend: AttentionBackend
    ran: dict[str, AttentionCall] = field(default_factory=dict)

    def check(self, call: AttentionCall) -> None:
        """Refuse a call that the backend cannot run.

        Raises:
            KernelUnavailable: with the reason.
        """
        if (reason := self.backend.supports(call)) is not None:
            raise KernelUnavailable(
                f"the attention '{self.name}' cannot run: {reason}",
                "Choose another: easyanimate doctor lists what works here; 'auto' finds the fastest.",
            )

    def supports(self, call: AttentionCall) -> str | None:
        """What the backend says."""
        return self.backend.supports(call)

    def within(self, bound: float) -> ChosenAttention:
        """The same for bounded logits, if the backend can use that; both note what ran in one place."""
        if not isinstance(self.backend, UsesBound):
            return self
        return ChosenAttention(self.name, self.backend.within(bound), self.ran)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`.

        Raises:
            KernelUnavailable: the backend does not take such a call.
        """
        backend = self.backend
        name = backend.chosen(q, k, v, mask, scale) if isinstance(backend, Auto) else self.name
        last = self.ran.get(name)
        # One look at shape and type; the whole question is asked only when something is new.
        if last is None or (last.length, last.head_dim, last.masked) != (q.shape[-2], q.shape[-1], mask is not None):
            call = call_of(q, mask)
            self.check(call)
            self.ran[name] = call
        return backend(q, k, v, mask=mask, scale=scale)

    def __str__(self) -> str:
        return ", ".join(self.ran) or self.name
