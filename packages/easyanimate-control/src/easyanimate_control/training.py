"""What `easyanimate-train` needs to train camera models; nobody loads this where it is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easyanimate_control.camera.path import CameraPath
from easyanimate_control.camera.rays import camera_map
from easyanimate_control.options import CameraGivenOptions
from easyanimate_core.data import Geometry

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["CameraGiven"]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What `easyanimate_train.interfaces.Drawn` is, without importing it."""

    values: Mapping[str, Tensor]
    pictured: bool = False


class CameraGiven:
    """Fills the inlet `camera` in training, as the conditioner `camera` does when a user gives a path."""

    needs = ("camera",)

    def __init__(self, options: CameraGivenOptions | None = None) -> None:
        self.options = options or CameraGivenOptions()

    def draw(self, pixels: Tensor, signals: Mapping[str, Tensor], rng: Generator) -> _Drawn:
        """The camera in every frame `(F, 16)`: lens, then world to camera by rows; and whether to `keep` it."""
        keep = torch.rand((), generator=rng).item() >= self.options.empty
        return _Drawn({"camera": signals["camera"], "keep": torch.tensor(keep)})

    def encode(
        self, encoder: Any, pixels: Tensor, latents: Tensor, drawn: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """`camera` `(B, 6, f, h, w)`: rays on the latents' grid."""
        geometry = Geometry(pixels.shape[3], pixels.shape[4], pixels.shape[2])
        maps = []
        for camera, keep in zip(drawn["camera"].cpu().numpy(), drawn["keep"].tolist(), strict=True):
            path = CameraPath(camera[:, :4], camera[:, 4:].reshape(-1, 3, 4), np.zeros(len(camera)))
            maps.append(camera_map(path, geometry, encoder.vae) * float(keep))
        return {"camera": torch.cat(maps).to(latents)}
