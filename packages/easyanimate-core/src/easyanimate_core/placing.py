"""Contracts of what decides where weights are, and in which type: the slot `storage`, and what `offload` may ask for.

Nothing here imports torch at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "MEMORY_MODES",
    "Footprint",
    "Foretells",
    "HasBlocks",
    "Keep",
    "KeepsAside",
    "KeepsInFiles",
    "KeepsSteady",
    "LetsBlocksStay",
    "Storage",
    "StoresByLayer",
    "TakesParts",
    "memory_mode",
]

MEMORY_MODES: Final[Mapping[str, tuple[Any, Any]]] = {
    "model_cpu_offload": ("model", "native"),
    "model_cpu_offload_and_qfloat8": ("model", {"name": "float8", "everything": True, "scaled": False}),
    "sequential_cpu_offload": (
        {"name": "sequential", "whole": ["Qwen2VLTextEncoder"]},
        {"name": "float8", "everything": True, "scaled": False, "only": ["Qwen2VLTextEncoder"]},
    ),
}
"""What the original's memory modes mean here: offload and storage, with their options."""


def memory_mode(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document whose `offload` names one of the original's memory modes, with what that means for both fields.

    Args:
        document: with the fields `offload` and `storage`, perhaps; other documents come back as they are.

    Raises:
        ValueError: the mode decides the storage, and the document says another one.
    """
    said = document.get("offload")
    key = said.strip().casefold() if isinstance(said, str) else ""
    if key not in MEMORY_MODES:
        return dict(document)
    offload, storage = MEMORY_MODES[key]
    if (other := document.get("storage", "auto")) not in (None, "auto", storage):
        raise ValueError(f"'{said}' decides the storage; it cannot be '{other}' as well")
    return {**document, "offload": offload, "storage": storage}


class Storage(Protocol):
    """In which type weights are kept while they are not computed with."""

    def store(self, role: str, module: Any) -> None:
        """Bring a component's weights into that type, in place.

        Called once for each component, when its weights have been read and before they are placed; on the meta
        device too, by who counts bytes.

        Args:
            role: `text`, `denoiser` or `vae`.
            module: its weights, in the type that they compute in.
        """
        ...


Keep: TypeAlias = "Callable[[Tensor], Tensor]"
"""Gets a weight as soon as it has been read, in the type that it is computed or stored in; gives the same numbers back,
where they are to wait. What still lies in a file that is mapped may stay there."""


@runtime_checkable
class StoresByLayer(Protocol):
    """Optional capability of a storage: gives every layer away before it takes the next, so that a component need never
    be in main memory as a whole."""

    def store_by_layer(self, role: str, module: Any, keep: Keep) -> None:
        """As `store`; everything new goes through `keep`."""
        ...


@runtime_checkable
class HasBlocks(Protocol):
    """Optional capability of a component: says itself which parts may come and go while it runs.

    A component without it is cut at its largest module lists.
    """

    def streamed_blocks(self) -> Sequence[Sequence[nn.Module]]:
        """Runs of blocks. Inside a run, blocks are called in order, as modules, one at a time."""
        ...


@runtime_checkable
class KeepsSteady(Protocol):
    """Optional capability of a component: reads parts of its blocks outside of them too."""

    def steady_modules(self) -> Sequence[nn.Module]:
        """Those parts: they stay on the device while the component is used, whatever comes and goes."""
        ...


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a component's weights take.

    Attributes:
        idle: on the device, while other components run.
        used: on the device, while it runs, at most.
        host: in main memory, beside the device.
        disk: in files that the strategy writes.
        moved: brought to the device in one pass through the component.
        pieces: in how many copies.
        ahead: they are fetched while something else is computed.
    """

    idle: int
    used: int
    host: int = 0
    disk: int = 0
    moved: int = 0
    pieces: int = 0
    ahead: bool = False


@runtime_checkable
class Foretells(Protocol):
    """Optional capability of an offload strategy: says what it will need, for who plans."""

    def footprint(self, role: str, module: nn.Module) -> Footprint:
        """What a component will take.

        Args:
            role: `text`, `text_2`…, `denoiser` or `vae`.
            module: its weights, as stored; on the meta device too.
        """
        ...


@runtime_checkable
class TakesParts(Protocol):
    """Optional capability of an offload strategy: takes components one by one, while the others are still unread.

    `attach` then takes those that it has not got yet.
    """

    def take(self, role: str, module: nn.Module, device: torch.device) -> None:
        """Take charge of a component.

        Args:
            role: `text`, `text_2`…, `denoiser` or `vae`.
            module: its weights, as stored.
            device: where it will compute.
        """
        ...


@runtime_checkable
class KeepsInFiles(Protocol):
    """Optional capability of an offload strategy: weights wait in files, so that main memory need never hold even one
    component."""

    def keeper(self, device: torch.device) -> Keep | None:
        """What weights are given to as they are read; `None` when they should be read into main memory.

        Args:
            device: where they will be computed with.
        """
        ...


@runtime_checkable
class LetsBlocksStay(Protocol):
    """Optional capability of an offload strategy: some blocks of a component stay on the device, others come and go."""

    def blocks_staying(self) -> Mapping[str, tuple[int, int]]:
        """By role: blocks that stay while the component runs, and blocks in all."""
        ...


@runtime_checkable
class KeepsAside(Protocol):
    """Optional capability of an offload strategy: counts what it holds on the device."""

    def held(self) -> tuple[int, int]:
        """Bytes of weights that it holds on the device now, and the most that it has held since `attach`."""
        ...
