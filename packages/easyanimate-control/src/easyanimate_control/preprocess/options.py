"""Options of the preprocessors. Pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from easyanimate_core.schema import Hint, Model

__all__ = ["CannyOptions", "DepthOptions", "LinesOptions", "PoseOptions"]


class CannyOptions(Model):
    """Where edges begin and end."""

    low: Annotated[int, Field(ge=0, le=1000)] = 100
    """Gradients below this are no edges, 0…1000. Default: 100."""

    high: Annotated[int, Field(ge=0, le=1000)] = 200
    """Gradients above this are edges; those in between are where they touch one, 0…1000. Default: 200."""

    blur: Annotated[float, Field(ge=0, le=20), Hint(unit="px")] = 0.0
    """Deviation of the blur before, against noise, 0…20 pixels. Default: 0."""

    @model_validator(mode="after")
    def _in_order(self) -> CannyOptions:
        if self.low > self.high:
            raise ValueError(f"'low' is '{self.low}' and 'high' is '{self.high}': low cannot be above high")
        return self


class DepthOptions(Model):
    """Which network sees how far away things are."""

    model: Annotated[str, Field(min_length=1), Hint(media="file")] = "depth-anything/Depth-Anything-V2-Small-hf"
    """Folder, or id on Hugging Face, of a depth model of transformers.
    Default: depth-anything/Depth-Anything-V2-Small-hf."""

    device: Annotated[str | None, Hint(advanced=True)] = None
    """Where to compute: cpu, cuda, cuda:1. Default: the best at hand."""


class LinesOptions(Model):
    """Which straight lines count."""

    shortest: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Lines shorter than this share of the frame's diagonal are left out, 0…1. Default: 0.03."""

    width: Annotated[int, Field(ge=1, le=20), Hint(unit="px")] = 1
    """Width of the drawn lines, 1…20 pixels. Default: 1."""


class PoseOptions(Model):
    """Which networks find people, and their joints."""

    mode: Literal["lightweight", "balanced", "performance"] = "balanced"
    """Size of the networks. Default: balanced."""

    detector: Annotated[str | None, Hint(media="file", advanced=True)] = None
    """ONNX file of the network that finds people (YOLOX). Default: downloaded by rtmlib into its cache."""

    pose: Annotated[str | None, Hint(media="file", advanced=True)] = None
    """ONNX file of the network that finds joints (RTMPose). Default: downloaded by rtmlib into its cache."""

    confidence: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Joints that are less sure are not drawn, 0…1. Default: 0.4."""

    device: Annotated[Literal["cpu", "cuda", "rocm", "mps"], Hint(advanced=True)] = "cpu"
    """Where onnxruntime computes. Default: cpu."""
