"""Options of the conditioners, and the types of pictures and videos in them. Pydantic only; no torch."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError

from easyanimate_core.schema import Hint, Model

__all__ = ["Clip", "ClipImageOptions", "FramesOptions", "MaskMedia", "Picture", "SourceVideoOptions"]

_PIXELS: Final = "pixels:"


def _media(value: object) -> object:
    """Paths as text, pixels as they are."""
    if isinstance(value, PathLike):
        return str(Path(value).expanduser())
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("must not be empty")
        if value.startswith(_PIXELS):
            told = {"hint": "Its document keeps only their fingerprint: give the pixels again, or a path."}
            raise PydanticCustomError("pixels_gone", "these pixels were given from Python", told)
        return str(Path(value).expanduser())
    if any(hasattr(value, name) for name in ("__array_interface__", "__array__", "frames")):
        return value
    raise ValueError("must be a path, or pixels")


def _named(value: object) -> str:
    """A path as it is; pixels by shape and SHA-256, because a document holds no pixels."""
    if isinstance(value, str):
        return value
    import numpy

    pixels: Any = getattr(value, "frames", value)
    if hasattr(pixels, "detach"):  # a tensor, perhaps on a GPU or in a type that numpy lacks
        pixels = pixels.detach().cpu()
        pixels = pixels.float() if pixels.is_floating_point() else pixels
    array = numpy.ascontiguousarray(numpy.asarray(pixels))
    shape = "x".join(str(side) for side in array.shape)
    return f"{_PIXELS}{shape}:sha256:{hashlib.sha256(array.tobytes()).hexdigest()}"


def _many(value: object) -> object:
    """One picture, or a list of them, as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


_read, _write = BeforeValidator(_media), PlainSerializer(_named, return_type=str)
_PATH: Final[JsonSchemaValue] = {"type": "string", "format": "path"}
_path, _paths = WithJsonSchema(_PATH), WithJsonSchema({"anyOf": [_PATH, {"type": "array", "items": _PATH}]})

Picture: TypeAlias = Annotated[Any, _read, _write, _path]
"""A path; from Python also a PIL image, an array `(H, W, 3)` or a tensor `(3, H, W)`, uint8 or floats in 0…1."""

Clip: TypeAlias = Annotated[Any, _read, _write, _path]
"""A path; from Python also a `Video`, an array `(F, H, W, 3)` or a tensor `(3, F, H, W)`, uint8 or floats in 0…1."""

MaskMedia: TypeAlias = Annotated[Any, _read, _write, _path]
"""A path of a picture or video; from Python also a PIL image, an array `(H, W)` or `(F, H, W)`, a tensor `(1, H, W)` or
`(1, F, H, W)`. White (240…255) is made anew, all else is kept."""


class FramesOptions(Model):
    """Pictures or parts of a video that the result has to contain."""

    start: Annotated[tuple[Picture, ...], BeforeValidator(_many), _paths, Hint(media="image", flag="start-image")] = ()
    """Picture that the video starts with, or several for its first frames. Default: none."""

    end: Annotated[tuple[Picture, ...], BeforeValidator(_many), _paths, Hint(media="image", flag="end-image")] = ()
    """Picture that it ends with, or several for its last frames; needs a start. Default: none."""

    video: Annotated[Clip | None, Hint(media="video")] = None
    """Video of which parts are kept; `mask` says which. Default: none."""

    mask: Annotated[MaskMedia | None, Hint(media="file")] = None
    """Picture or video, as large as `video`: white (240…255) is made anew, all else is kept. Default: none."""

    noise: Annotated[float, Field(ge=0, le=1), Hint(advanced=True)] = 0.0563
    """Deviation of the noise on kept pixels (in −1…1) for models that were trained with it; black pixels get none.
    0…1. Default: 0.0563."""

    show: Annotated[bool, Hint(advanced=True)] = True
    """Show the first `start` picture to the image encoder of a model that has one. Default: yes."""

    @model_validator(mode="after")
    def _fits_together(self) -> FramesOptions:
        if self.end and not self.start:
            raise ValueError("'end' needs a picture to start with: give 'start' as well")
        if self.start and self.video is not None:
            raise ValueError("'start' and 'video' exclude each other: give one of them")
        if (self.video is None) != (self.mask is None):
            lacking, given = ("mask", "video") if self.mask is None else ("video", "mask")
            raise ValueError(f"'{given}' needs '{lacking}' to say what is kept")
        if not self.start and self.video is None:
            raise ValueError("nothing is given: give 'start', or 'video' and 'mask'")
        return self


class ClipImageOptions(Model):
    """A picture of what the result should look like, for models with an image encoder."""

    image: Annotated[Picture, Hint(media="image", flag="clip-image")]
    """The picture. It is not part of the video; a start picture of `frames` is shown by itself."""


class SourceVideoOptions(Model):
    """A video that the result is a variation of."""

    video: Annotated[Clip, Hint(media="video", flag="source-video")]
    """The video; its frames are thinned out to the request's frames per second."""

    strength: Annotated[float, Field(ge=0, le=1), Hint(flag="strength")] = 0.7
    """How much changes, 0 (nothing) … 1 (everything): the share of the steps that is taken. Default: 0.7."""

    mask: Annotated[MaskMedia | None, Hint(media="file", flag="mask")] = None
    """Picture or video, as large as `video`: white (240…255) is made anew, all else is kept. Default: all is new."""

    noise: Annotated[float, Field(ge=0, le=1), Hint(advanced=True)] = 0.0563
    """As the `noise` of `frames`; counts only with a mask. 0…1. Default: 0.0563."""
