"""The joint text-video transformer of V5 and V5.1."""

from easyanimate_core.denoisers.mmdit.model import MMDiT, MMDiTTokens

__all__ = ["MMDiT", "MMDiTTokens"]
