"""The contracts of training: objective × learnable × dataset. No torch at run time.

Shapes follow the legend in `easyanimate_core.data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Generator, Tensor, nn

__all__ = ["Batch", "Learnable", "Models", "Objective", "TrainDataset"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one micro-step sees.

    Attributes:
        captions: one per sample.
        pixels: `(B, 3, F, H, W)` in −1…1; `None` when latents were cached.
        latents: `(B, C, f, h, w)` scaled latents, when they were cached.
    """

    captions: tuple[str, ...]
    pixels: Tensor | None = None
    latents: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Models:
    """The modules of one checkpoint, as objectives see them.

    Attributes:
        denoiser: the `transformer/` folder's network.
        vae: the `vae/` folder's network.
        text: the `text_encoder/` folder's network.
        folder: where configs, tokenizer and scheduler are.
    """

    folder: Path
    denoiser: Any = None
    vae: Any = None
    text: Any = None

    def roles(self) -> Mapping[str, nn.Module]:
        """Modules by role, those that the objective asked for."""
        named = {"denoiser": self.denoiser, "vae": self.vae, "text": self.text}
        return {role: module for role, module in named.items() if module is not None}


class TrainDataset(Protocol):
    """Clips and captions by index. Everything random comes from the generator that is given."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def pixels(self, index: int, rng: Generator) -> Tensor:
        """One clip `(3, F, H, W)` in −1…1; all clips of a dataset have one size."""
        ...

    def caption(self, index: int, rng: Generator) -> str:
        """A caption of the item; may be worded differently every time."""
        ...

    def fingerprint(self) -> str:
        """Changes when the pixels of any index would: keys caches."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A loss over a batch."""

    roles: Sequence[str]
    """Modules that the objective runs: `denoiser`, `vae`, `text`."""

    def begin(self, models: Models) -> None:
        """Called once before the first step of a new run, not after a resume."""
        ...

    def loss(self, models: Models, batch: Batch, rng: Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Scalar loss and further scalars for the log; every random draw comes from `rng`."""
        ...

    def finish(self, models: Models, sample: Batch) -> None:
        """Called once after the last step, before the result is written."""
        ...


class Learnable(Protocol):
    """Chooses what training changes."""

    def parameters(self, models: Models) -> Mapping[str, nn.Parameter]:
        """Parameters by `role.name`; every other parameter is frozen.

        Raises:
            InvalidOptions: nothing matches.
        """
        ...
