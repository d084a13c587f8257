"""Released models as data: `find_preset("v5.1-7b")`."""

from __future__ import annotations

from easyanimate_core.presets.catalog import all_presets, find_preset
from easyanimate_core.presets.model import Preset
from easyanimate_core.presets.original import OriginalConfig, read_config

__all__ = ["OriginalConfig", "Preset", "all_presets", "find_preset", "read_config"]
