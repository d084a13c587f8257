"""The released denoisers by their shapes, so that a mismatch can say which model a file really is.

Source: the releases' `config.json`, published parameter counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["RELEASES", "Anatomy", "Release", "anatomy", "describe_nearest"]

_BLOCK: Final = re.compile(r"transformer_blocks\.(\d+)\.(attn2\.to_q\.weight|attn1\.add_q_proj\.weight|)")


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What distinguishes the released denoisers.

    Attributes:
        width: channels of a token.
        layers: blocks.
        mmdit_layers: blocks with own weights for text.
        in_channels: of the patch projection.
        text_width: of the (first) text encoder's states.
    """

    width: int
    layers: int
    mmdit_layers: int
    in_channels: int
    text_width: int

    def __str__(self) -> str:
        own = "all" if self.mmdit_layers == self.layers else str(self.mmdit_layers)
        return (
            f"width {self.width}, {self.layers} layers ({own} with own text weights), "
            f"{self.in_channels} input channels, text width {self.text_width}"
        )


@dataclass(frozen=True, slots=True)
class Release:
    """A released denoiser: its folder's name, the preset for it if there is one, and its anatomy."""

    folder: str
    preset: str
    anatomy: Anatomy


def _family(
    generation: str, size: str, layers: int, own: int, text: int, tasks: Mapping[str, tuple[str, int]]
) -> tuple[Release, ...]:
    return tuple(
        Release(
            f"EasyAnimateV{generation}-{size}-zh{suffix}",
            f"v{generation}-{size}{task}",
            Anatomy(3072, layers, own, channels, text),
        )
        for task, (suffix, channels) in tasks.items()
    )


_V51: Final = (
    ("", ("", 16)),
    ("-inp", ("-InP", 33)),
    ("-control", ("-Control", 48)),
    ("-camera", ("-Control-Camera", 38)),
)
_V5: Final = (("", ("", 16)), ("-inp", ("-InP", 33)), ("-control", ("-Control", 32)))

RELEASES: Final[tuple[Release, ...]] = (
    *_family("5.1", "7b", 36, 18, 3584, dict(_V51)),
    *_family("5.1", "12b", 48, 48, 3584, dict(_V51)),
    *_family("5", "7b", 36, 18, 1024, dict(_V5[:2])),
    *_family("5", "12b", 48, 48, 1024, dict(_V5)),
)
"""Denoisers of V5.1 and V5."""


def anatomy(shapes: Mapping[str, tuple[int, ...]]) -> Anatomy | None:
    """The anatomy of a denoiser by the shapes of its tensors; `None` when they are of something else."""
    proj = shapes.get("proj.weight", ())
    found = [match for name in shapes if (match := _BLOCK.match(name))]
    text = next((shapes[name] for name in ("text_proj.1.weight", "text_proj.weight") if name in shapes), ())
    if len(proj) < 2 or not found or len(text) != 2:
        return None
    layers = {int(match[1]) for match in found}
    own = {int(match[1]) for match in found if match[2]}
    return Anatomy(proj[0], len(layers), len(own), proj[1], text[1])


def describe_nearest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """One sentence on which release tensors of these shapes are, or are nearest to; empty for other models."""
    found = anatomy(shapes)
    if found is None:
        return ""

    def distance(release: Release) -> tuple[int, ...]:
        other = release.anatomy
        return (
            sum(getattr(found, name) != getattr(other, name) for name in Anatomy.__slots__),
            abs(found.layers - other.layers),
            abs(found.in_channels - other.in_channels),
        )

    nearest = min(RELEASES, key=distance)
    if nearest.anatomy == found:
        return f"These are the weights of {nearest.folder}: choose the model '{nearest.preset}'."
    if nearest.anatomy.width != found.width:
        return f"No release has these shapes ({found})."
    return f"The nearest release is {nearest.folder} ({nearest.anatomy}); the file has {found}."
