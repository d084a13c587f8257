"""The full-attention transformer of V4."""

from easyanimate_core.denoisers.hunyuan.model import Hunyuan, HunyuanTokens

__all__ = ["Hunyuan", "HunyuanTokens"]
