"""Known pixels to the inlets `mask` and `masked_video`: what the models for images and videos were trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from easyanimate_core.conditioning.draws import draw_noise
from easyanimate_core.data import Condition, Inpainting
from easyanimate_core.errors import IncompatibleConditions
from easyanimate_core.interfaces import Inpaints, SupportsMaps

if TYPE_CHECKING:
    from easyanimate_core.data import Geometry, State
    from easyanimate_core.interfaces import Denoiser, Toolbox

__all__ = ["HIDDEN", "INLETS", "Known", "augment", "inpaint_conditions", "mask_out", "nothing_known", "wants_unknown"]

INLETS = ("mask", "masked_video")
"""The inlets that known pixels feed."""

HIDDEN = -1.0
"""Value of hidden pixels in a masked video. Pixels that are black have it too, and get no noise either: released
models were trained so."""


@dataclass(frozen=True, slots=True)
class Known:
    """A video of which parts are known.

    Attributes:
        pixels: `(1, 3, F, H, W)` in 0…1; anything where it is hidden.
        hidden: `(1, 1, F, H, W)`, 1 where pixels are to be made, 0 where they are known.
    """

    pixels: Tensor
    hidden: Tensor


def nothing_known(geometry: Geometry) -> Known:
    """A video of which everything is to be made."""
    shape = geometry.frames, geometry.height, geometry.width
    return Known(torch.zeros(1, 3, *shape), torch.ones(1, 1, *shape))


def wants_unknown(denoiser: Denoiser) -> bool:
    """Whether a denoiser has to be told that nothing is known: it was never shown empty inlets."""
    has = {inlet.name for inlet in denoiser.inlets} >= set(INLETS)
    return has and isinstance(denoiser, Inpaints) and not denoiser.inpainting.blank


def mask_out(known: Known) -> Tensor:
    """The masked video `(1, 3, F, H, W)` in −1…1, hidden pixels at `HIDDEN`."""
    return torch.where(known.hidden > 0.5, HIDDEN, known.pixels * 2 - 1)


def augment(masked: Tensor, noise: Tensor, level: float | Tensor) -> Tensor:
    """Noise on known pixels, against overconfidence in a sharp picture.

    Blattmann et al., "Stable Video Diffusion" (2023), appendix D.

    Args:
        masked: `(B, 3, F, H, W)` in −1…1; pixels that are exactly `HIDDEN` stay as they are.
        noise: unit noise of the same shape.
        level: deviation, one number or `(B,)`.
    """
    if isinstance(level, Tensor):
        level = level.to(masked).reshape(-1, *[1] * (masked.ndim - 1))
    return torch.where(masked == HIDDEN, masked, masked + noise * level)


def inpaint_conditions(known: Known, state: State, toolbox: Toolbox, *, noise: float) -> tuple[Condition, ...]:
    """Conditions for the inlets `mask` and `masked_video`.

    Args:
        known: at the size of the state's geometry.
        state: its seeds decide the noise: each sample's generator, after it drew the sample's latents.
        toolbox: its VAE encodes; its denoiser says how the inlets were trained.
        noise: deviation of the noise on known pixels, where the checkpoint was trained with it.

    Returns:
        Both conditions, or none when nothing is known and the checkpoint takes empty inlets for that.

    Raises:
        IncompatibleConditions: the checkpoint wants a resized mask, and the VAE cannot resize one.
    """
    how = toolbox.denoiser.inpainting if isinstance(toolbox.denoiser, Inpaints) else Inpainting()
    if how.blank and bool((known.hidden > 0.5).all()):
        return ()
    masked = mask_out(known).to(device=toolbox.device, dtype=toolbox.dtype)
    if how.noised and noise > 0:
        _, generators = draw_noise(state, toolbox)
        latents = []
        for generator in generators:  # one at a time: encoding needs more memory than anything before
            toolbox.cancel.check()
            drawn = torch.randn(masked.shape, generator=generator, dtype=masked.dtype).to(masked.device)
            latents.append(toolbox.vae.encode_video(augment(masked, drawn, noise)))
        video = torch.cat(latents)
    else:
        video = toolbox.vae.encode_video(masked)
    return Condition("mask", _mask(known, how, toolbox, video)), Condition("masked_video", video)


def _mask(known: Known, how: Inpainting, toolbox: Toolbox, video: Tensor) -> Tensor:
    hidden = known.hidden.to(toolbox.device)
    if how.mask == "encoded":
        return toolbox.vae.encode_video(hidden.to(toolbox.dtype).expand(-1, 3, -1, -1, -1))
    if not isinstance(toolbox.vae, SupportsMaps):
        raise IncompatibleConditions(
            f"the VAE '{type(toolbox.vae).__name__}' cannot bring a mask to its latents' grid",
            "It needs the method 'resize_map'; see easyanimate_core.interfaces.SupportsMaps.",
        )
    frames, height, width = video.shape[2:]
    return toolbox.vae.resize_map(1 - hidden, (frames, height, width), scaled=True)
