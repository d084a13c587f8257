"""What training clips are given besides captions: pictures, control videos, cameras."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from easyanimate_core.data import Inlet
from easyanimate_core.errors import ConfigError
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit
from easyanimate_train.config import CacheConfig
from easyanimate_train.data.cache import ClipEncoder, cached_latents
from easyanimate_train.data.options import ShapesOptions, ViewsOptions
from easyanimate_train.data.order import DataOrder, draw_sample, generator, stack_drawn
from easyanimate_train.data.shapes import Shapes
from easyanimate_train.data.views import Views
from easyanimate_train.givens.control import ControlVideo, Reference
from easyanimate_train.givens.inpaint import Inpaint
from easyanimate_train.givens.options import ControlVideoOptions, InpaintOptions, ReferenceOptions
from easyanimate_train.models import load_models
from easyanimate_train.objectives.denoise import Denoise
from easyanimate_train.shapes import COLOURS, MOTIONS, Scene, caption_change, caption_colours, parse, read
from easyanimate_train.shapes.evaluator import overlap
from easyanimate_train.shapes.views import MOVES, Camera, View, draw_camera, draw_view, read_move, render_view


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def vae() -> Magvit:
    torch.manual_seed(0)
    return Magvit(**VAE_CONFIG).eval()


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.rand(2, 3, 9, 16, 16, generator=rng()) * 2 - 1


@pytest.mark.feature("T112")
def test_an_inpaint_given_is_what_the_conditioner_would_give(vae: Magvit, clips: torch.Tensor) -> None:
    """Mask 1 where known, scaled as latents are; hidden pixels at −1; both zero where nothing is known."""
    given = Inpaint(InpaintOptions(kind="after_start"))
    drawn = [given.draw(clip, {}, rng(i)) for i, clip in enumerate(clips)]
    assert all(one.pictured for one in drawn)
    stacked = {name: torch.stack([one.values[name] for one in drawn]) for name in drawn[0].values}
    encoder = ClipEncoder(vae)
    latents = encoder(clips)
    inlets = given.encode(encoder, clips, latents, stacked)
    assert inlets["mask"].shape == (2, 1, *latents.shape[2:])
    assert torch.allclose(inlets["mask"][:, :, 0], torch.tensor(float(vae.config.scaling_factor)))
    assert inlets["masked_video"].shape == latents.shape
    # The first frame is known, and causal: its latents are the clip's own.
    assert torch.allclose(inlets["masked_video"][:, :, 0], latents[:, :, 0], atol=1e-5)


def test_wholly_hidden_clips_mostly_leave_inlets_empty(vae: Magvit, clips: torch.Tensor) -> None:
    given = Inpaint(InpaintOptions(kind="all", empty=0.5))
    drawn = [given.draw(clips[0], {}, rng(i)) for i in range(40)]
    empty = torch.stack([one.values["empty"] for one in drawn])
    assert 8 < int(empty.sum()) < 32
    assert not any(one.pictured for one in drawn)
    stacked = {"hidden": torch.ones(2, 1, 9, 16, 16), "empty": torch.tensor([True, False])}
    encoder = ClipEncoder(vae)
    inlets = given.encode(encoder, clips, encoder(clips), stacked)
    assert not inlets["masked_video"][0].any()
    assert inlets["masked_video"][1].any()


def test_noise_goes_on_known_pixels_only(vae: Magvit, clips: torch.Tensor) -> None:
    given = Inpaint(InpaintOptions(kind="all", noise=True, empty=0.0))
    values = {name: value[None] for name, value in given.draw(clips[0], {}, rng()).values.items()}
    assert values["noise"].shape == (1, 3, 9, 16, 16)
    encoder = ClipEncoder(vae)
    noisy = given.encode(encoder, clips[:1], encoder(clips[:1]), values)["masked_video"]
    assert torch.allclose(noisy, encoder(torch.full_like(clips[:1], -1.0)), atol=1e-5)


@pytest.mark.feature("T140")
def test_control_and_reference_fill_their_inlets(vae: Magvit) -> None:
    dataset = Shapes(ShapesOptions(frames=9, side=16))
    givens = (ControlVideo(ControlVideoOptions(empty=0.0)), Reference(ReferenceOptions(empty=0.0)))
    samples = [draw_sample(dataset, givens, i, (0, i)) for i in range(2)]
    assert all(sample.pictured for sample in samples)
    pixels = torch.stack([sample.pixels for sample in samples])
    encoder = ClipEncoder(vae)
    latents = encoder(pixels)
    control, reference = (
        given.encode(encoder, pixels, latents, drawn) for given, drawn in zip(givens, stack_drawn(samples), strict=True)
    )
    assert torch.equal(control["control"], encoder(stack_drawn(samples)[0]["control"]))
    assert torch.allclose(reference["reference"][:, :, 0], latents[:, :, 0], atol=1e-5)
    assert not reference["reference"][:, :, 1:].any()
    for given, drawn in zip(givens, stack_drawn(samples), strict=True):
        without = {**drawn, "keep": torch.zeros(2, dtype=torch.bool)}
        assert not next(iter(given.encode(encoder, pixels, latents, without).values())).any()


def test_the_outline_lies_on_the_edge_of_the_shape() -> None:
    dataset = Shapes(ShapesOptions(frames=5))
    for index in range(0, len(dataset), 400):
        clip, control = dataset.pixels(index, rng(index)), dataset.signals(index, rng(index))["control"]
        assert control.shape == clip.shape
        line = control[0] > -1
        edge = (clip[:, :, :, 1:] - clip[:, :, :, :-1]).norm(dim=0) > 0.3
        assert (line[:, :, 1:] | line[:, :, :-1])[edge].all()


def test_a_given_needs_its_signal() -> None:
    with pytest.raises(ConfigError, match="does not know 'control'"):
        draw_sample(Views(ViewsOptions(frames=5, side=16)), (ControlVideo(),), 0, (0, 0))


def test_cached_inlets_are_those_of_the_way_without_cache(tmp_path: Path, vae: Magvit) -> None:
    dataset, given = Shapes(ShapesOptions(frames=5, side=16)), Inpaint()
    cached = cached_latents(tmp_path, dataset, vae, CacheConfig(clips=3), 1, givens={"inpaint": given})
    assert cached["inlet.mask"].shape == (3, 1, *cached["latents"].shape[2:])
    samples = [draw_sample(dataset, (given,), i, (1, "cache", i)) for i in range(3)]
    pixels = torch.stack([sample.pixels for sample in samples])
    encoder = ClipEncoder(vae)
    inlets = given.encode(encoder, pixels, encoder(pixels), stack_drawn(samples)[0])
    assert torch.allclose(cached["inlet.masked_video"].float(), inlets["masked_video"], atol=2e-3)
    assert cached["pictured"].tolist() == [sample.pictured for sample in samples]
    other = cached_latents(tmp_path, dataset, vae, CacheConfig(clips=3), 1)
    assert "inlet.mask" not in other
    batch = DataOrder(dataset, 0, 3, cached).batch(0)
    assert batch.inlets["mask"].shape[0] == 3


def test_captions_of_pictured_clips_need_not_say_looks() -> None:
    scene = Scene("circle", "red", "blue", "small", "left")
    said = [caption_change(scene, rng(i)) for i in range(200)]
    parsed = [parse(text) for text in said]
    assert sum(one is None for one in parsed) > 30
    assert sum(one == scene for one in parsed) > 5
    assert all(one.motion == "left" for one in parsed if one is not None)
    assert parse(caption_colours(scene, rng())) is None


@pytest.mark.feature("T101", "T112")
def test_inlets_grow_without_changing_the_model(tmp_path: Path) -> None:
    """New input channels start at zero; the objective wires what batches hold."""
    folder = write_checkpoint(tmp_path)
    plain = load_models(folder, ("denoiser",), (), 0).denoiser
    channels = plain.config.in_channels
    inlets = (Inlet("mask", "channels", 1), Inlet("masked_video", "channels", channels))
    grown = load_models(folder, ("denoiser",), (), 0, inlets=inlets, denoiser={"add_noise_in_inpaint_model": False})
    denoiser = grown.denoiser
    assert denoiser.config.in_channels == 2 * channels + 1
    assert not denoiser.inpainting.noised
    weight = dict(denoiser.named_parameters())["proj.weight"]
    assert torch.equal(weight[:, :channels], plain.proj.weight)
    assert not weight[:, channels:].any()
    text = load_models(folder, ("text",), (), 0).text
    from easyanimate_core.data import TextEmbedding

    ids, mask = text.tokenize(["a"])
    embedding = (TextEmbedding(text(ids, mask), mask),)
    clean, noise = torch.randn(2, 1, channels, 2, 4, 4, generator=rng()).unbind(0)
    given = {"mask": torch.ones(1, 1, 2, 4, 4), "masked_video": torch.randn(1, channels, 2, 4, 4, generator=rng(1))}
    sigma, objective = torch.tensor([0.5]), Denoise()
    alone = objective.loss_at(plain, clean, noise, sigma, embedding)
    with_inlets = objective.loss_at(denoiser, clean, noise, sigma, embedding, given)
    assert torch.allclose(alone, with_inlets, atol=1e-6)


@pytest.mark.parametrize("move", MOVES)
def test_moves_are_read_from_pixels(move: str) -> None:
    """The camera goes one way, what it sees the other; the reader tells all moves apart."""
    scene = Scene("star", "red", "white", "small", "still")
    clip = render_view(scene, View(phase=(0.3, 0.8)), Camera(((move, 0.8),)))
    assert clip.shape == (3, 17, 64, 64)
    assert read_move(clip) == move
    assert read_move(clip[:, :1].expand(-1, 17, -1, -1)) == "still"


def test_a_view_starts_alike_whatever_the_camera_does() -> None:
    scene, view = Scene("square", "green", "black", "large", "still"), draw_view(rng())
    cameras = [draw_camera(rng(i)) for i in range(6)]
    first = [render_view(scene, view, camera, frames=5)[:, 0] for camera in cameras]
    assert all(torch.allclose(first[0], one, atol=1e-5) for one in first)
    assert len({camera.moves for camera in cameras}) > 2
    assert read(render_view(scene, View(), Camera(), frames=5)).scene is not None


def test_overlap_is_one_where_the_object_should_be_and_less_elsewhere() -> None:
    dataset = Shapes(ShapesOptions(frames=3))
    clip = dataset.pixels(7, generator("x")) / 2 + 0.5
    scene = dataset.scenes[7]
    ground = torch.tensor(COLOURS[scene.background])[:, None, None, None]
    paint = torch.tensor(COLOURS[scene.colour])[:, None, None, None]
    mask = ((clip - ground) * (paint - ground)).sum(0) / ((paint - ground) ** 2).sum()
    assert overlap(clip, mask) > 0.98
    assert overlap(clip, mask.roll(20, 2)) < 0.6
    assert scene.motion in MOTIONS
