"""The contracts of training: objective × learnable × dataset. No torch at run time.

Shapes follow the legend in `easyanimate_core.data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Generator, Tensor, nn

__all__ = [
    "Batch",
    "Drawn",
    "Encoder",
    "Given",
    "HasSignals",
    "Learnable",
    "Models",
    "Objective",
    "SaysChange",
    "TrainDataset",
]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one micro-step sees.

    Attributes:
        captions: one per sample.
        pixels: `(B, 3, F, H, W)` in −1…1; `None` when latents were cached.
        latents: `(B, C, f, h, w)` scaled latents, when they were cached.
        drawn: what givens drew for these pixels, one mapping per given; see `Drawn.values`, stacked.
        inlets: what goes into the denoiser's inlets besides text, each `(B, C, f, h, w)`; empty ones are left out.
    """

    captions: tuple[str, ...]
    pixels: Tensor | None = None
    latents: Tensor | None = None
    drawn: tuple[Mapping[str, Tensor], ...] = ()
    inlets: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a given chose for one clip.

    Attributes:
        values: by name, of any shape, the same for every clip.
        pictured: the clip's appearance is given by a picture, so a caption need not say it.
    """

    values: Mapping[str, Tensor]
    pictured: bool = False


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
class HasSignals(Protocol):
    """Optional capability of a dataset: knows more about a clip than its pixels, for example a control video."""

    def signals(self, index: int, rng: Generator) -> Mapping[str, Tensor]:
        """Signals by name, for the clip that `pixels` makes of a generator in the same state."""
        ...


@runtime_checkable
class SaysChange(Protocol):
    """Optional capability of a dataset: captions for clips whose appearance a picture gives."""

    def caption_change(self, index: int, rng: Generator) -> str:
        """What happens in the clip; what it says about looks, if anything, need not be true."""
        ...


class Encoder(Protocol):
    """Pixels to latents, as the run does it."""

    vae: Any

    def __call__(self, clips: Tensor) -> Tensor:
        """Clips `(B, 3, F, H, W)` in −1…1 to scaled latents `(B, C, f, h, w)`."""
        ...


class Given(Protocol):
    """Fills inlets of the denoiser in training, as a conditioner does when a user gives something."""

    needs: Sequence[str]
    """Signals of the dataset that `draw` reads."""

    def draw(self, pixels: Tensor, signals: Mapping[str, Tensor], rng: Generator) -> Drawn:
        """Choose for one clip `(3, F, H, W)`; cheap, without any model.

        Args:
            pixels: of the clip.
            signals: those that this needs.
            rng: every draw comes from it.
        """
        ...

    def encode(
        self, encoder: Encoder, pixels: Tensor, latents: Tensor, drawn: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Values by inlet, `(B, C, f, h, w)` each.

        Args:
            encoder: of pixels.
            pixels: `(B, 3, F, H, W)`.
            latents: what the encoder makes of them.
            drawn: stacked values of `draw`.
        """
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
