"""The procedural world seen by a moving camera, as a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from easyanimate_train.data.options import ViewsOptions
from easyanimate_train.shapes import all_scenes, caption, is_held_out
from easyanimate_train.shapes.views import draw_camera, draw_view, poses, render_view

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_train.shapes import Scene

__all__ = ["Views"]

_WORLD = 1


class Views:
    """One item per combination of attributes; camera, placement and wording differ every time."""

    def __init__(self, options: ViewsOptions | None = None) -> None:
        self.options = options or ViewsOptions()
        held_out = self.options.held_out
        self.scenes: tuple[Scene, ...] = tuple(
            scene for scene in all_scenes() if scene.motion == "still" and is_held_out(scene) == held_out
        )

    def __len__(self) -> int:
        return len(self.scenes)

    def pixels(self, index: int, rng: Generator) -> Tensor:
        """One clip `(3, F, side, side)` in −1…1."""
        options = self.options
        camera, view = draw_camera(rng), draw_view(rng, options.spread)
        return render_view(self.scenes[index], view, camera, frames=options.frames, side=options.side) * 2 - 1

    def signals(self, index: int, rng: Generator) -> Mapping[str, Tensor]:
        """`camera` `(F, 16)` float64: fx, fy, cx, cy as shares of a 1280×720 picture, then world to camera by rows."""
        camera = draw_camera(rng)
        pose = poses(camera, self.options.frames).flatten(1)
        return {"camera": torch.cat([torch.tensor(camera.lens, dtype=pose.dtype).expand(len(pose), 4), pose], dim=1)}

    def caption(self, index: int, rng: Generator) -> str:
        """One of the ways to say the scene."""
        return caption(self.scenes[index], rng)

    def fingerprint(self) -> str:
        """Hash of the options and of the world's version."""
        return hashlib.sha256(f"views {_WORLD} {self.options.model_dump_json()}".encode()).hexdigest()
