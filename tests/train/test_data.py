"""Datasets, their order, and the latent cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from easyanimate_core.data import Video
from easyanimate_core.errors import ConfigError, UnreadableMedia
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit
from easyanimate_train.config import CacheConfig
from easyanimate_train.data.cache import cached_latents
from easyanimate_train.data.options import ShapesOptions, VideoOptions
from easyanimate_train.data.order import DataOrder, generator
from easyanimate_train.data.shapes import Shapes
from easyanimate_train.data.video import Videos, clip_frames, cover
from easyanimate_train.shapes import is_held_out


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A video of 40 frames whose brightness is its time, and a picture."""
    ramp = torch.linspace(0, 1, 40).view(1, 1, 40, 1, 1).expand(1, 3, -1, 48, 64)
    Video(ramp, fps=24).save(tmp_path / "ramp.mp4")
    Image.fromarray(np.full((60, 40, 3), 200, np.uint8)).save(tmp_path / "grey.png")
    return tmp_path


def videos(folder: Path, items: list[dict[str, str]], **options: object) -> Videos:
    (folder / "list.json").write_text(json.dumps(items), "utf-8")
    given = {"height": 32, "width": 32, "frames": 5, "stride": 2, **options}
    return Videos(VideoOptions.model_validate({"annotations": folder / "list.json", **given}))


@pytest.mark.feature("T001", "T005", "T008")
def test_videos_and_pictures_become_clips_of_one_size(media: Path) -> None:
    dataset = videos(
        media,
        [
            {"file_path": "ramp.mp4", "text": "a ramp", "type": "video"},
            {"file_path": str(media / "grey.png"), "text": "grey"},
        ],
    )
    clip, picture = dataset.pixels(0, rng()), dataset.pixels(1, rng())
    assert clip.shape == picture.shape == (3, 5, 32, 32)
    brightness = clip.mean((0, 2, 3))
    assert (brightness.diff() > 0).all()
    assert clip.min() >= -1
    assert clip.max() <= 1
    assert picture.std() < 0.02
    assert dataset.caption(0, rng()) == "a ramp"


@pytest.mark.feature("T008")
def test_clips_keep_the_stride_within_the_trim() -> None:
    indices = clip_frames(100, 17, 3, (0.1, 0.9), rng())
    assert indices[0] >= 10
    assert indices[-1] < 90
    assert indices.diff().tolist() == [3] * 16
    assert len(clip_frames(20, 17, 3, (0.1, 0.9), rng())) == 6
    with pytest.raises(UnreadableMedia, match="only 1 frames"):
        clip_frames(1, 17, 3, (0.1, 0.9), rng())


def test_cover_fills_the_size() -> None:
    assert cover(torch.rand(2, 3, 48, 100), 32, 32).shape == (2, 3, 32, 32)
    assert cover(torch.rand(2, 3, 10, 10), 32, 64).shape == (2, 3, 32, 64)


@pytest.mark.feature("T007")
def test_an_unreadable_file_is_replaced_and_all_unreadable_is_an_error(media: Path) -> None:
    (media / "broken.mp4").write_bytes(b"not a video")
    good = {"file_path": "grey.png", "text": "grey", "type": "image"}
    bad = {"file_path": "broken.mp4", "text": "broken", "type": "video"}
    assert videos(media, [bad, good, good, good]).pixels(0, rng()).shape == (3, 5, 32, 32)
    with pytest.raises(UnreadableMedia, match=r"5 files in a row.*broken\.mp4"):
        videos(media, [bad]).pixels(0, rng())


@pytest.mark.feature("T007")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "not a list of items"),
        ('[{"text": "a"}]', "item 0 of .* lacks 'file_path'"),
        ('[{"file_path": "a", "text": "a", "type": "audio"}]', "has the type 'audio'"),
    ],
)
def test_bad_annotations_are_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        Videos(VideoOptions(annotations=path))


def test_missing_annotations_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the annotations"):
        Videos(VideoOptions(annotations=tmp_path / "none.json"))


def test_shapes_show_only_their_split() -> None:
    shown, kept = Shapes(ShapesOptions()), Shapes(ShapesOptions(held_out=True))
    assert len(shown) + len(kept) == 3136
    assert not any(map(is_held_out, shown.scenes))
    assert all(map(is_held_out, kept.scenes))
    assert shown.fingerprint() != kept.fingerprint()


@pytest.mark.feature("T015", "T023")
def test_batches_follow_from_seed_and_number_alone() -> None:
    dataset = Shapes(ShapesOptions(frames=1, side=16))
    one, two = DataOrder(dataset, 5, 4), DataOrder(dataset, 5, 4)
    straight = [one.batch(i) for i in range(3)]
    assert torch.equal(two.batch(2).pixels, straight[2].pixels)
    assert two.batch(2).captions == straight[2].captions
    assert DataOrder(dataset, 6, 4).batch(2).captions != straight[2].captions


@pytest.mark.feature("T015")
def test_every_epoch_shows_every_item_once_in_another_order() -> None:
    dataset = Shapes(ShapesOptions(frames=1, side=16))
    order = DataOrder(dataset, 0, 5)
    latents = {"latents": torch.zeros(10, 1, 1, 1, 1, dtype=torch.float16), "items": torch.arange(10)}
    marked = {**latents, "latents": torch.arange(10).half().view(10, 1, 1, 1, 1)}
    cached = DataOrder(dataset, 0, 5, marked)
    epochs = [[int(v) for i in (2 * e, 2 * e + 1) for v in cached.batch(i).latents.flatten()] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert order.batch(0).latents is None


def test_cached_latents_are_computed_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae, dataset = Magvit(**VAE_CONFIG), Shapes(ShapesOptions(frames=5, side=16))
    config = CacheConfig(clips=3)
    told: list[tuple[int, int]] = []
    first = cached_latents(tmp_path, dataset, vae, config, 1, lambda done, total: told.append((done, total)))
    assert told == [(3, 3)]
    assert first["latents"].shape == (3, 16, 2, 2, 2)
    again = cached_latents(tmp_path, dataset, vae, config, 1, lambda done, total: told.append((done, total)))
    assert torch.equal(first["latents"], again["latents"])
    assert len(told) == 1
    clip = dataset.pixels(2, generator(1, "cache", 2))
    with torch.no_grad():
        torch.testing.assert_close(first["latents"][2:].float(), vae.encode_video(clip[None]), atol=1e-3, rtol=1e-3)

    vae.encoder.conv_in.bias.data += 1
    cached_latents(tmp_path, dataset, vae, config, 1)
    assert len(list(tmp_path.iterdir())) == 2, "other weights, other file"


def test_key_frames_are_refused_for_a_vae_that_looks_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="not its key frames' latents"):
        cached_latents(
            tmp_path,
            Shapes(ShapesOptions(frames=5, side=16)),
            Magvit(**VAE_CONFIG),
            CacheConfig(clips=2, key_frames=True),
            0,
        )
