"""What every strategy that brings weights is made of: components by role, in use or not, and a count of bytes."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

__all__ = ["ByRole", "Ledger", "Usable"]


class Ledger:
    """Bytes of weights on the device: now, and at most."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def add(self, nbytes: int) -> None:
        """More of them, or fewer."""
        self.now += nbytes
        self.peak = max(self.peak, self.now)


class Usable(Protocol):
    """One component under a strategy's care."""

    def enter(self) -> None:
        """It is used from here on; may be said several times."""
        ...

    def leave(self) -> None:
        """It is used no longer, once this has been said as often as `enter`."""
        ...

    def give_back(self) -> None:
        """Leave the weights as they were found, without hooks."""
        ...


U = TypeVar("U", bound=Usable)


class ByRole(ABC, Generic[U]):
    """Components by role.

    Attributes:
        components: by role, as the toolbox names them.
        ledger: bytes of weights on the device.
    """

    def __init__(self) -> None:
        self.components: dict[str, U] = {}
        self.ledger = Ledger()

    @contextmanager
    def using(self, *roles: str) -> Iterator[None]:
        """Inside, the components of these roles can run; `text` means all text encoders."""
        used = [c for role, c in self.components.items() if role in roles or role.split("_")[0] in roles]
        entered: list[U] = []
        try:
            for component in used:
                entered.append(component)
                component.enter()
            yield
        finally:
            for component in reversed(entered):
                component.leave()

    def detach(self) -> None:
        """Give the modules back: in main memory, without hooks."""
        while self.components:
            self.components.popitem()[1].give_back()

    def held(self) -> tuple[int, int]:
        """Bytes on the device now, and at most; see `placing.KeepsAside`."""
        return self.ledger.now, self.ledger.peak
