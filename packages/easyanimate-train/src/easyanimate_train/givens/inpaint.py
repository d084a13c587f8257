"""Known parts of clips for the inlets `mask` and `masked_video`.

Source: the training of EasyAnimate from V5 on: ten kinds of random mask, and noise on what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from easyanimate_core.conditioning.inpaint import HIDDEN, augment
from easyanimate_core.errors import ConfigError
from easyanimate_core.interfaces import SupportsMaps
from easyanimate_train.data.random_masks import draw_kind, random_mask
from easyanimate_train.givens.options import InpaintOptions
from easyanimate_train.interfaces import Drawn

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_train.interfaces import Encoder

__all__ = ["Inpaint"]

_LOG_MEAN, _LOG_STD = -3.0, 0.5


class Inpaint:
    """Hides random parts of a clip and gives the rest."""

    needs = ()

    def __init__(self, options: InpaintOptions | None = None) -> None:
        self.options = options or InpaintOptions()

    def draw(self, pixels: Tensor, signals: Mapping[str, Tensor], rng: Generator) -> Drawn:
        """A mask `hidden` `(1, F, H, W)`, 1 where pixels are to be made; whether the inlets are `empty`; and, when it
        is asked for, unit `noise` like the pixels and its `level`.
        """
        frames, height, width = pixels.shape[1:]
        kind = self.options.kind or draw_kind(frames, rng)
        hidden = random_mask(frames, height, width, rng, kind=kind).transpose(0, 1)
        nothing = bool((hidden > 0.5).all())
        empty = nothing and torch.rand((), generator=rng).item() < self.options.empty
        values = {"hidden": hidden, "empty": torch.tensor(empty)}
        if self.options.noise:
            values["level"] = torch.exp(torch.randn((), generator=rng) * _LOG_STD + _LOG_MEAN)
            values["noise"] = torch.randn(pixels.shape, generator=rng)
        # A whole known frame shows what everything looks like.
        return Drawn(values, pictured=bool((hidden < 0.5).flatten(2).all(dim=2).any()))

    def encode(
        self, encoder: Encoder, pixels: Tensor, latents: Tensor, drawn: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """`mask` `(B, 1, f, h, w)` and `masked_video` `(B, C, f, h, w)`.

        Raises:
            ConfigError: the VAE cannot bring a mask to its latents' grid.
        """
        if not isinstance(encoder.vae, SupportsMaps):
            raise ConfigError(f"the VAE '{type(encoder.vae).__name__}' cannot resize masks", "It needs 'resize_map'.")
        hidden = drawn["hidden"].to(pixels)
        masked = torch.where(hidden > 0.5, HIDDEN, pixels)
        if "noise" in drawn:
            masked = augment(masked, drawn["noise"].to(masked), drawn["level"])
        f, h, w = latents.shape[2:]
        mask = encoder.vae.resize_map(1 - hidden, (f, h, w), scaled=True)
        filled = (~drawn["empty"]).to(latents).reshape(-1, 1, 1, 1, 1)
        return {"mask": mask * filled, "masked_video": encoder(masked) * filled}
