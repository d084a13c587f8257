"""Cameras in training are those of inference: the shapes world, the given and the conditioner agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from easyanimate_control.camera.moves import parse_moves
from easyanimate_control.camera.path import CameraPath, path_of_moves
from easyanimate_control.camera.rays import camera_map
from easyanimate_control.training import CameraGiven
from easyanimate_core.data import Geometry
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit

data = pytest.importorskip("easyanimate_train.data.views")
from easyanimate_train.data.cache import ClipEncoder  # noqa: E402
from easyanimate_train.data.options import ViewsOptions  # noqa: E402
from easyanimate_train.data.order import draw_sample, stack_drawn  # noqa: E402
from easyanimate_train.shapes.views import MOVES, Camera, poses  # noqa: E402


@pytest.mark.feature("K009", "T022")
@pytest.mark.parametrize("move", MOVES)
def test_a_move_of_the_world_is_the_move_of_that_name(move: str) -> None:
    path = path_of_moves(parse_moves(f"{move}*0.8"), frames=17, focal=0.5)
    camera = Camera(((move, 0.8),), focal=0.5)
    np.testing.assert_allclose(poses(camera, 17).numpy(), path.poses, atol=1e-12)
    np.testing.assert_allclose([camera.lens] * 17, path.lenses, rtol=1e-6)


@pytest.mark.feature("T022", "T140")
def test_the_given_fills_the_inlet_as_the_conditioner_does() -> None:
    vae, dataset, given = Magvit(**VAE_CONFIG).eval(), data.Views(ViewsOptions(frames=9, side=16)), CameraGiven()
    samples = [draw_sample(dataset, (given,), index, (0, index)) for index in range(2)]
    pixels = torch.stack([sample.pixels for sample in samples])
    encoder = ClipEncoder(vae)
    latents = encoder(pixels)
    (drawn,) = stack_drawn(samples)
    found = given.encode(encoder, pixels, latents, drawn)["camera"]
    for index, value in enumerate(found):
        rows = drawn["camera"][index].numpy()
        path = CameraPath(rows[:, :4], rows[:, 4:].reshape(-1, 3, 4), np.zeros(9))
        assert torch.equal(value[None], camera_map(path, Geometry(16, 16, 9), vae))
    without = given.encode(encoder, pixels, latents, {**drawn, "keep": torch.zeros(2, dtype=torch.bool)})
    assert not without["camera"].any()
