"""The procedural world as a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from easyanimate_train.data.options import ShapesOptions
from easyanimate_train.shapes import (
    all_scenes,
    caption,
    caption_change,
    caption_colours,
    is_held_out,
    outline,
    place,
    render,
)

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_train.shapes import Scene

__all__ = ["Shapes"]

_WORLD = 1


class Shapes:
    """One item per combination of attributes; placement and wording differ every time."""

    def __init__(self, options: ShapesOptions | None = None) -> None:
        self.options = options or ShapesOptions()
        self.scenes: tuple[Scene, ...] = tuple(s for s in all_scenes() if is_held_out(s) == self.options.held_out)

    def __len__(self) -> int:
        return len(self.scenes)

    def pixels(self, index: int, rng: Generator) -> Tensor:
        """One clip `(3, F, side, side)` in −1…1."""
        return self._draw(render, index, rng)

    def signals(self, index: int, rng: Generator) -> Mapping[str, Tensor]:
        """`control`: the shape's outline `(3, F, side, side)` in −1…1, white on black."""
        return {"control": self._draw(outline, index, rng)}

    def _draw(self, how: Callable[..., Tensor], index: int, rng: Generator) -> Tensor:
        options = self.options
        placement = place(rng, options.spread)
        return how([self.scenes[index]], [placement], frames=options.frames, side=options.side)[0] * 2 - 1

    def caption(self, index: int, rng: Generator) -> str:
        """One of the ways to say the scene, or its colours."""
        if self.options.only_colours and torch.rand((), generator=rng).item() < self.options.only_colours:
            return caption_colours(self.scenes[index], rng)
        return caption(self.scenes[index], rng)

    def caption_change(self, index: int, rng: Generator) -> str:
        """The motion alone, the whole scene, or the motion of a scene that looks otherwise."""
        return caption_change(self.scenes[index], rng)

    def fingerprint(self) -> str:
        """Hash of the options and of the world's version."""
        return hashlib.sha256(
            f"shapes {_WORLD} {self.options.model_dump_json(exclude={'only_colours'})}".encode()
        ).hexdigest()
