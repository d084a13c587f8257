"""LoRA files: read in any of three layouts, attached at run time or fused, converted, written."""

from __future__ import annotations

from easyanimate_core.checkpoints.lora.attach import AttachedLora, attach_lora
from easyanimate_core.checkpoints.lora.file import LoraFile, LowRank, read_lora
from easyanimate_core.checkpoints.lora.fuse import FusedLoras, fuse_loras
from easyanimate_core.checkpoints.lora.match import LoraReport, match_lora
from easyanimate_core.checkpoints.lora.names import LAYOUTS, linear_names
from easyanimate_core.checkpoints.lora.place import locate_lora
from easyanimate_core.checkpoints.lora.stack import LoraStack
from easyanimate_core.checkpoints.lora.write import sshs_hashes, write_lora

__all__ = [
    "LAYOUTS",
    "AttachedLora",
    "FusedLoras",
    "LoraFile",
    "LoraReport",
    "LoraStack",
    "LowRank",
    "attach_lora",
    "fuse_loras",
    "linear_names",
    "locate_lora",
    "match_lora",
    "read_lora",
    "sshs_hashes",
    "write_lora",
]
