"""CLIP as a picture encoder: the recorded tokens, how pictures are prepared, and what is refused.

Source of the recorded tokens: tests/goldens/pipe_v4_inp, from the reference system in float32 on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.golden import assert_close, load_case

from easyanimate_core.errors import CheckpointMismatch
from easyanimate_core.images.clip import ClipImageEncoder
from easyanimate_core.interfaces import ImageEncoder
from easyanimate_core.pipeline.components import build_image_encoder
from easyanimate_core.testing.tiny import texts

CASE = load_case("pipe_v4_inp")


@pytest.fixture(scope="module")
def recorded() -> ClipImageEncoder:
    encoder = ClipImageEncoder(CASE.config["clip"], CASE.config["clip_image_processor"])
    encoder.model.load_state_dict(CASE.state_dict("clip"), strict=True)
    return encoder


@pytest.mark.feature("C016")
@torch.no_grad()
def test_tokens_are_the_recorded_ones(recorded: ClipImageEncoder) -> None:
    """What the transformer was given at the last step: nothing for the unguided half, the picture for the other."""
    call = CASE.call("clip_start")
    encoder: ImageEncoder = recorded
    picture = call.inputs["clip_image_pixels"].permute(2, 0, 1)[None] / 255
    tokens = encoder.encode_image(picture).tokens
    name = "last_step.clip_encoder_hidden_states"
    assert_close(call, {name: torch.cat([torch.zeros_like(tokens), tokens])}, only=[name])


@torch.no_grad()
def test_pictures_of_any_size_are_cut_out_of_the_middle(recorded: ClipImageEncoder) -> None:
    for height, width in ((16, 32), (31, 12), (5, 7), (12, 12)):
        assert recorded.prepare(torch.rand(2, 3, height, width)).shape == (2, 3, 12, 12)
    wide = torch.zeros(1, 3, 12, 36)
    wide[..., 12:24] = 1.0
    middle = recorded.prepare(wide)
    torch.testing.assert_close(middle, recorded.prepare(torch.ones(1, 3, 12, 12)))


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_neighbours(recorded: ClipImageEncoder) -> None:
    pictures = torch.rand(3, 3, 16, 20)
    together = recorded.encode_image(pictures)
    assert together.tokens.shape == (3, 9, 20)
    assert together.pooled.shape == (3, 8)
    for i in range(3):
        alone = recorded.encode_image(pictures[i : i + 1])
        assert torch.equal(together.tokens[i], alone.tokens[0])
        assert torch.equal(together.pooled[i], alone.pooled[0])


@pytest.mark.feature("C016")
@torch.no_grad()
def test_a_released_folder_loads_strictly(tmp_path: Path) -> None:
    folder = texts.write_clip(tmp_path / "image_encoder", projection=16)
    picture = torch.rand(1, 3, 12, 12)
    got: Any = build_image_encoder("CLIPVisionModelWithProjection", folder, dtype=torch.float32)
    assert got.encode_image(picture).pooled.shape == (1, 16)
    tensors = load_file(folder / "model.safetensors")
    text_side = {"text_model.embeddings.position_ids": torch.arange(4), "logit_scale": torch.tensor(1.0)}
    save_file({**tensors, **text_side}, folder / "model.safetensors")
    again = build_image_encoder("clip", folder, dtype=torch.float32)
    assert torch.equal(again.encode_image(picture).tokens, got.encode_image(picture).tokens)
    save_file({n: t for n, t in tensors.items() if "pre_layrnorm" not in n}, folder / "model.safetensors")
    with pytest.raises(CheckpointMismatch, match="2 missing"):
        build_image_encoder("clip", folder, dtype=torch.float32)


def test_a_whole_clip_s_config_will_do() -> None:
    vision = {key: value for key, value in texts.CLIP_CONFIG.items() if key not in ("model_type", "projection_dim")}
    whole = {"model_type": "clip", "projection_dim": 8, "vision_config": vision}
    shapes = [
        {n: t.shape for n, t in ClipImageEncoder(config).state_dict().items()} for config in (whole, texts.CLIP_CONFIG)
    ]
    assert shapes[0] == shapes[1]


def test_foreign_configs_are_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="'siglip_vision_model'"):
        ClipImageEncoder({"model_type": "siglip_vision_model"})
    with pytest.raises(CheckpointMismatch, match="the encoder reads 12"):
        ClipImageEncoder(texts.CLIP_CONFIG, {"crop_size": {"height": 24, "width": 24}, "size": 24})
