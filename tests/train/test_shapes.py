"""The procedural world: its captions, its pictures, and the reader that measures models by them."""

from __future__ import annotations

import pytest
import torch

from easyanimate_train.shapes import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Placement,
    Scene,
    all_scenes,
    caption,
    captions,
    is_held_out,
    parse,
    place,
    read,
    render,
    score,
)

SCENES = all_scenes()
RED_CIRCLE = Scene("circle", "red", "blue", "large", "right")


def test_every_combination_is_there_once() -> None:
    assert len(SCENES) == len(set(SCENES)) == len(SHAPES) * 8 * 7 * len(SIZES) * len(MOTIONS) == 3136


def test_a_tenth_is_held_out_and_every_value_is_trained() -> None:
    trained = [scene for scene in SCENES if not is_held_out(scene)]
    assert 0.08 < 1 - len(trained) / len(SCENES) < 0.12
    for field, values in (("shape", SHAPES), ("colour", COLOURS), ("size", SIZES), ("motion", MOTIONS)):
        assert {getattr(scene, field) for scene in trained} == set(values)


def test_every_caption_says_its_scene() -> None:
    for scene in SCENES[::29]:
        for text in captions(scene):
            assert parse(text) == scene, text


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        ("a red circle moving right on a blue background", RED_CIRCLE),
        ("蓝色背景上，一个大红色圆形向右移动", RED_CIRCLE),
        ("A small GREEN star getting bigger over black", Scene("star", "green", "black", "small", "growing")),
        ("a cat on a sofa", None),
    ],
)
def test_captions_are_understood(text: str, scene: Scene | None) -> None:
    assert parse(text) == scene


def test_captions_are_drawn_from_the_generator() -> None:
    first, again = (caption(RED_CIRCLE, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == again
    rng = torch.Generator().manual_seed(0)
    assert {caption(RED_CIRCLE, rng) for _ in range(400)} == set(captions(RED_CIRCLE))


def test_shapes_of_one_size_have_one_area() -> None:
    scenes = [Scene(shape, "white", "black", "large", "still") for shape in SHAPES]
    clips = render(scenes, [Placement()] * 4, frames=1, side=256)
    areas = (clips.mean(1) > 0.5).float().mean((1, 2, 3))
    torch.testing.assert_close(areas, areas.mean().expand(4), rtol=0.01, atol=0)


def test_edges_are_anti_aliased() -> None:
    clip = render([RED_CIRCLE], [Placement()], frames=1)
    ground = torch.tensor(COLOURS["blue"])[:, None, None, None]
    paint = torch.tensor(COLOURS["red"])[:, None, None, None]
    mixed = (clip[0] - ground).abs().sum(0).gt(0.01) & (clip[0] - paint).abs().sum(0).gt(0.01)
    assert 30 < mixed.sum() < 150


def test_the_reader_is_right_on_ground_truth() -> None:
    """The gate of every measurement: at least 99.5 % on each attribute."""
    rng = torch.Generator().manual_seed(0)
    picked = [SCENES[int(i)] for i in torch.randperm(len(SCENES), generator=rng)[:400]]
    clips = render(picked, [place(rng, 4 / 64) for _ in picked])
    percent = score([(scene, read(clip)) for scene, clip in zip(picked, clips, strict=True)])
    assert all(percent[name] >= 99.5 for name in ("shape", "colour", "background", "size", "motion", "all")), percent


def test_the_reader_reads_noisy_pixels() -> None:
    rng = torch.Generator().manual_seed(1)
    picked = SCENES[::157]
    clips = render(picked, [place(rng) for _ in picked])
    clips = (clips + 0.05 * torch.randn(clips.shape, generator=rng)).clamp(0, 1)
    percent = score([(scene, read(clip)) for scene, clip in zip(picked, clips, strict=True)])
    assert percent["all"] >= 90, percent


def test_the_reader_is_not_fooled() -> None:
    """A wrong attribute is read as what it is, and an empty picture as nothing."""
    moving_left = render([Scene("circle", "red", "blue", "large", "left")], [Placement()])[0]
    reading = read(moving_left)
    assert reading.scene is not None
    assert reading.scene.motion == "left"
    assert score([(RED_CIRCLE, reading)])["all"] == 0
    assert read(torch.full((3, 17, 64, 64), 0.4)).scene is None


def test_an_empty_score_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        score([])
