"""Reconstruction for video VAEs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from easyanimate_core.vae.magvit.causal_conv import CausalConv3d
from easyanimate_train.objectives.options import VaeOptions

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_train.interfaces import Batch, Models

__all__ = ["Reconstruct"]


class Reconstruct:
    """Encode, perhaps disturb, decode, compare."""

    roles = ("vae",)

    def __init__(self, options: VaeOptions | None = None) -> None:
        self.options = options or VaeOptions()

    def begin(self, models: Models) -> None:
        """Nothing to prepare."""

    def loss(self, models: Models, batch: Batch, rng: Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Absolute, squared and divergence terms; draws, in order: posterior, size of the noise, noise."""
        vae, options = models.vae, self.options
        assert batch.pixels is not None
        mean, logvar = vae.encode_moments(batch.pixels, whole=True).float().chunk(2, dim=1)
        logvar = logvar.clamp(-30, 20)
        latents = mean
        if options.sample:
            latents = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=rng).to(mean)
        if options.latent_noise:
            amount = torch.rand((mean.shape[0], 1, 1, 1, 1), generator=rng).to(mean) * options.latent_noise
            spread = mean.detach().std((0, 2, 3, 4), keepdim=True)
            latents = latents + amount * spread * torch.randn(mean.shape, generator=rng).to(mean)
        decoded = next(vae.decode_stream(latents * vae.config.scaling_factor, whole=True)).float()
        difference = decoded - batch.pixels
        l1, l2 = difference.abs().mean(), difference.pow(2).mean()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        psnr = 10 * torch.log10(4 / l2.detach().clamp(min=1e-10))
        return l1 + options.l2 * l2 + options.kl * kl, {"l1": l1, "kl": kl, "psnr": psnr}

    def finish(self, models: Models, sample: Batch) -> None:
        """Fold time and measure the scaling factor, if asked."""
        assert sample.pixels is not None
        if self.options.fold_time:
            for module in models.vae.modules():
                if isinstance(module, CausalConv3d):
                    total = module.weight.sum(2)
                    module.weight.zero_()
                    module.weight[:, :, -1] = total
        if self.options.scale:
            mean = models.vae.encode_moments(sample.pixels).chunk(2, dim=1)[0]
            models.vae.register_to_config(scaling_factor=round(float(1 / mean.std()), 4))
