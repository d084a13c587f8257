"""In which type weights are kept between uses."""

from __future__ import annotations

from torch import nn

__all__ = ["Native"]


class Native:
    """Keeps weights in the dtype that they compute in."""

    def store(self, role: str, module: nn.Module) -> None:
        """Nothing to do.

        Args:
            role: `text`, `denoiser` or `vae`.
            module: its weights, as loaded.
        """
