"""The spatial-temporal transformer of V1, V2 and V3: PixArt's image model with motion modules between its layers."""

from easyanimate_core.denoisers.pixart.model import PixArt, PixArtTokens
from easyanimate_core.denoisers.pixart.motion import MotionOptions

__all__ = ["MotionOptions", "PixArt", "PixArtTokens"]
