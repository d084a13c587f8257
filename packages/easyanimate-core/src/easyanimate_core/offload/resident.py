"""The simplest placement: everything on the device, all the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from easyanimate_core.offload.blocks import size_of
from easyanimate_core.offload.pack import tensors_of
from easyanimate_core.placing import Footprint

if TYPE_CHECKING:
    from easyanimate_core.interfaces import Toolbox

__all__ = ["Auto", "Resident"]


class Resident:
    """Moves every module to the device once: the fastest placement, and the one that needs most memory."""

    def __init__(self) -> None:
        self._homes: list[tuple[nn.Module, torch.device]] = []

    def attach(self, toolbox: Toolbox, device: torch.device) -> None:
        """Move the toolbox's modules to the device, remembering where each was."""
        for module in toolbox.modules().values():
            if isinstance(module, nn.Module):
                self._homes.append((module, _placement(module)))
                module.to(device)

    @contextmanager
    def using(self, *roles: str) -> Iterator[None]:
        """Nothing to do: everything is there."""
        yield

    def detach(self) -> None:
        """Move every module back to where it was found."""
        for module, home in self._homes:
            module.to(home)
        self._homes.clear()

    def footprint(self, role: str, module: nn.Module) -> Footprint:
        """All of it, always; see `placing.Foretells`."""
        size = size_of(tensors_of(module))
        return Footprint(idle=size, used=size)

    def held(self) -> tuple[int, int]:
        """All of it, now and at most; see `placing.KeepsAside`."""
        size = size_of(tensors_of(*(module for module, _ in self._homes)))
        return size, size


class Auto(Resident):
    """What the planner decides; resident where nobody asked it."""


def _placement(module: nn.Module) -> torch.device:
    """Where a module's weights are; the CPU for one without any."""
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device
