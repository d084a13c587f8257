"""Tiny checkpoints with random weights, in the layout of a release and with its real classes: a file per generation."""

from __future__ import annotations

from easyanimate_core.testing.tiny.v1 import write_checkpoint as write_v1_checkpoint
from easyanimate_core.testing.tiny.v1 import write_motion_module
from easyanimate_core.testing.tiny.v2 import write_checkpoint as write_v2_checkpoint
from easyanimate_core.testing.tiny.v3 import write_checkpoint as write_v3_checkpoint
from easyanimate_core.testing.tiny.v4 import write_checkpoint as write_v4_checkpoint
from easyanimate_core.testing.tiny.v5 import write_checkpoint as write_v5_checkpoint
from easyanimate_core.testing.tiny.v5_1 import (
    CHAT_TEMPLATE,
    SCHEDULER_CONFIG,
    TEXT_ENCODER_CONFIG,
    TRANSFORMER_CONFIG,
    VAE_CONFIG,
    make_tokenizer,
    write_checkpoint,
    write_tokenizer,
)

__all__ = [
    "CHAT_TEMPLATE",
    "SCHEDULER_CONFIG",
    "TEXT_ENCODER_CONFIG",
    "TRANSFORMER_CONFIG",
    "VAE_CONFIG",
    "make_tokenizer",
    "write_checkpoint",
    "write_motion_module",
    "write_tokenizer",
    "write_v1_checkpoint",
    "write_v2_checkpoint",
    "write_v3_checkpoint",
    "write_v4_checkpoint",
    "write_v5_checkpoint",
]
