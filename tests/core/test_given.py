"""Sizes from a picture's ratio, and embeddings in the place of prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from easyanimate_core.data import TextEmbedding
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.events import EventBus
from easyanimate_core.media.resize import BUCKETS, bucket_size
from easyanimate_core.pipeline import Pipeline
from easyanimate_core.request import GenerationRequest
from inpainting import SMALL, inpainter, painter, picture, said
from recorder import PROMPT, Recorder


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return inpainter(tmp_path_factory.mktemp("inp"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return painter(tmp_path_factory.mktemp("t2v"))


@pytest.mark.feature("C043")
@pytest.mark.parametrize(
    ("height", "width", "base", "wanted"),
    [
        (720, 1280, 512, (384, 672)),
        (1080, 1920, 512, (384, 672)),
        (1920, 1080, 512, (672, 384)),
        (100, 100, 512, (512, 512)),
        (100, 100, 960, (960, 960)),
        (720, 1280, 768, (576, 1008)),
        (1, 100, 512, (256, 1024)),
        (100, 1, 512, (1024, 256)),
    ],
)
def test_the_nearest_ratio_decides(height: int, width: int, base: int, wanted: tuple[int, int]) -> None:
    assert bucket_size(height, width, base) == wanted


@pytest.mark.feature("C043")
def test_every_bucket_is_a_size() -> None:
    for base in (256, 512, 768, 1024):
        for _, height, width in BUCKETS:
            assert [side % 16 for side in bucket_size(height, width, base)] == [0, 0]
    assert [ratio for ratio, _, _ in BUCKETS] == sorted(ratio for ratio, _, _ in BUCKETS)


@pytest.mark.feature("C043")
def test_a_picture_gives_the_size(pipe: Pipeline) -> None:
    wide = said("frames", start=picture(height=72, width=128))
    made = pipe(prompt=PROMPT, frames=1, steps=1, resolution=64, conditions=[wide])
    assert made.frames.shape[-2:] == (48, 80)
    told = GenerationRequest.model_validate({**made.notes["request"], "conditions": []})
    assert (str(told.size), told.resolution) == ("48x80", None)


@pytest.mark.feature("C043")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 64}, "no condition has a picture"),
        ({"resolution": 64, "size": (32, 32)}, "'resolution' is '64'"),
        ({"resolution": 512, "conditions": [said("frames", start=picture())]}, "makes 416x608"),
    ],
)
def test_a_resolution_needs_a_picture_and_no_size(pipe: Pipeline, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        pipe.complete(prompt=PROMPT, frames=1, **settings)


@pytest.mark.feature("C043")
def test_a_stretched_picture_is_told(pipe: Pipeline) -> None:
    heard = Recorder()
    pipe(**{**SMALL, "frames": 1}, conditions=[said("frames", start=picture(height=64))], events=EventBus(heard))
    assert heard.notices == ["64x48 is stretched to 32x48; 'resolution' in place of a size keeps its ratio"]


@pytest.mark.feature("C007", "C039")
def test_embeddings_replace_prompts(plain: Pipeline) -> None:
    encoder = plain.prepare().text_encoders[0]
    settings = {key: value for key, value in SMALL.items() if key != "prompt"}
    negative = encoder.encode([plain.preset.defaults.negative_prompt])
    made = plain(text=encoder.encode([PROMPT, "a green star"]), negative_text=negative, videos_per_prompt=2, **settings)
    wanted = plain(**{**SMALL, "prompt": (PROMPT, "a green star")}, videos_per_prompt=2)
    assert torch.equal(made.frames, wanted.frames)
    alone = plain(text=encoder.encode([PROMPT]), guidance=1, **settings)
    assert torch.equal(alone.frames, plain(**SMALL, guidance=1).frames)


@pytest.mark.feature("C007", "C039")
def test_embeddings_that_do_not_fit_are_refused(plain: Pipeline) -> None:
    encoder = plain.prepare().text_encoders[0]
    one, settings = encoder.encode([PROMPT]), {key: value for key, value in SMALL.items() if key != "prompt"}
    with pytest.raises(InvalidRequest, match="'prompt' is"):
        plain(text=one, **SMALL)
    with pytest.raises(InvalidRequest, match="'negative_text' is missing"):
        plain(text=one, **settings)
    with pytest.raises(InvalidRequest, match="no 'text'"):
        plain(negative_text=one, **SMALL)
    with pytest.raises(InvalidRequest, match="'3' prompts"):
        plain(text=one, negative_text=encoder.encode(["", "", ""]), **settings)
    with pytest.raises(InvalidRequest, match="do not fit together"):
        plain(text=TextEmbedding(one.states, one.mask[:, :3]), guidance=1, **settings)
