"""What tests of control share: tiny control and camera models in the layout of a release."""

from __future__ import annotations

from pathlib import Path

from easyanimate_core.data import Inlet
from easyanimate_core.pipeline import Pipeline, load
from inpainting import small, written

__all__ = ["camera_model", "control_model", "v5_control_model"]


def control_model(folder: Path) -> Pipeline:
    """V5.1 Control: 16 + 16 + 16 channels."""
    return load(small("v5.1-7b-control"), weights=written(folder, 48))


def camera_model(folder: Path, channels: int = 6) -> Pipeline:
    """V5.1 Control-Camera: 16 + 6 + 16 channels, or another width of its inlet `camera`."""
    inlets = (Inlet("camera", "channels", channels), Inlet("reference", "channels", 16))
    preset = small("v5.1-7b-camera").model_copy(update={"inlets": inlets})
    return load(preset, weights=written(folder, 32 + channels))


def v5_control_model(folder: Path) -> Pipeline:
    """A control model without a reference, as V5 is: 16 + 16 channels."""
    preset = small("v5.1-7b-control").model_copy(update={"inlets": (Inlet("control", "channels", 16),)})
    return load(preset, weights=written(folder, 32))
