"""Control videos and reference pictures, for the inlets `control` and `reference`.

Source: the training of EasyAnimate's control models, which leave either out in a fifth of all clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from easyanimate_train.givens.options import ControlVideoOptions, ReferenceOptions
from easyanimate_train.interfaces import Drawn

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_train.interfaces import Encoder

__all__ = ["ControlVideo", "Reference"]


def _keep(empty: float, rng: Generator) -> bool:
    return torch.rand((), generator=rng).item() >= empty


def _share(keep: Tensor, like: Tensor) -> Tensor:
    """1 for samples that have it, 0 for others, for latents."""
    return keep.to(like).reshape(-1, 1, 1, 1, 1)


class ControlVideo:
    """Gives the dataset's control video."""

    needs = ("control",)

    def __init__(self, options: ControlVideoOptions | None = None) -> None:
        self.options = options or ControlVideoOptions()

    def draw(self, pixels: Tensor, signals: Mapping[str, Tensor], rng: Generator) -> Drawn:
        """The control video `(3, F, H, W)`, and whether to `keep` it."""
        return Drawn({"control": signals["control"], "keep": torch.tensor(_keep(self.options.empty, rng))})

    def encode(
        self, encoder: Encoder, pixels: Tensor, latents: Tensor, drawn: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """`control` `(B, C, f, h, w)`."""
        return {"control": encoder(drawn["control"].to(pixels)) * _share(drawn["keep"], latents)}


class Reference:
    """Gives the first frame."""

    needs = ()

    def __init__(self, options: ReferenceOptions | None = None) -> None:
        self.options = options or ReferenceOptions()

    def draw(self, pixels: Tensor, signals: Mapping[str, Tensor], rng: Generator) -> Drawn:
        """Whether to `keep` it."""
        keep = _keep(self.options.empty, rng)
        return Drawn({"keep": torch.tensor(keep)}, pictured=keep)

    def encode(
        self, encoder: Encoder, pixels: Tensor, latents: Tensor, drawn: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """`reference` `(B, C, f, h, w)`: the picture in the first latent frame, zeros after it."""
        first = torch.zeros_like(latents)
        first[:, :, :1] = encoder(pixels[:, :, :1])
        return {"reference": first * _share(drawn["keep"], latents)}
