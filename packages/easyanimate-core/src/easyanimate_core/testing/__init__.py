"""What plugin authors test with: tiny real checkpoints."""

from __future__ import annotations

from easyanimate_core.testing.tiny import write_checkpoint

__all__ = ["write_checkpoint"]
