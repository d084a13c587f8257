"""The causal video VAE of V2 to V5.1."""

from easyanimate_core.vae.magvit.model import Magvit

__all__ = ["Magvit"]
