"""The VAEs that wrap diffusers' classes: the picture VAE of V1, and CogVideoX's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from tests.golden import Call, assert_close, load_case

from easyanimate_core.data import Geometry
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.interfaces import SupportsMaps, SupportsTiling, VideoVAE
from easyanimate_core.testing.tiny.vaes import COGVIDEOX_CONFIG, KL2D_CONFIG
from easyanimate_core.vae.cogvideox import CogVideoX
from easyanimate_core.vae.kl2d import KL2d

COGVIDEOX = load_case("vae_cogvideox")


@pytest.fixture(scope="module")
def pictures() -> KL2d:
    torch.manual_seed(0)
    return KL2d(**KL2D_CONFIG).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def recorded() -> CogVideoX:
    config = {name: value for name, value in COGVIDEOX.config.items() if name != "force_upcast"}
    vae = CogVideoX(**config).eval().requires_grad_(False)
    vae.load_state_dict(COGVIDEOX.state_dict(), strict=True)
    return vae


@pytest.mark.feature("C022")
def test_every_frame_is_a_picture_of_its_own(pictures: KL2d) -> None:
    pixels = torch.rand(2, 3, 3, 32, 16) * 2 - 1
    latents = pictures.encode_video(pixels)
    assert latents.shape == pictures.compression.latent_shape(Geometry(32, 16, 3, batch=2))
    frames = pictures.decode_video(latents)
    for i in range(3):
        alone = pictures.encode(pixels[:, :, i]).latent_dist.mode()
        assert torch.equal(latents[:, :, i], alone * pictures.config.scaling_factor)
        assert torch.equal(frames[:, :, i], pictures.decode(1 / 0.18215 * latents[:, :, i]).sample)


@pytest.mark.feature("C022")
def test_pictures_stream_one_by_one(pictures: KL2d) -> None:
    latents = torch.randn(1, 4, 3, 4, 4)
    runs = list(pictures.decode_stream(latents))
    assert [run.shape[2] for run in runs] == [1, 1, 1]
    assert torch.equal(torch.cat(runs, dim=2), pictures.decode_video(latents))


@pytest.mark.feature("C041")
def test_any_number_of_pictures_is_exact(pictures: KL2d) -> None:
    assert [pictures.compression.round_frames(n) for n in (0, 1, 7, 80)] == [1, 1, 7, 80]


def test_old_names_of_the_attention_are_understood(pictures: KL2d) -> None:
    """As in the files that V1 was released with; `mid_block.attentions.0.query` is `to_q` today."""
    today = set(pictures.state_dict())
    place = "encoder.mid_block.attentions.0"
    old = {f"{place}.{name}.weight" for name in ("query", "key", "value", "proj_attn")}
    new = {f"{place}.{name}.weight" for name in ("to_q", "to_k", "to_v", "to_out.0")}
    assert {pictures.keymap(name) for name in old} == new <= today
    assert {pictures.keymap(name) for name in today} == today


def test_the_released_picture_vae_has_its_parameter_count() -> None:
    """Stable Diffusion 1.x: 83.65 million."""
    with torch.device("meta"):
        vae = KL2d(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        theirs = AutoencoderKL.from_config(vae.config)
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert vae.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.feature("C026")
def test_pictures_are_tiled_from_a_size_on(pictures: KL2d) -> None:
    latents = torch.randn(1, 4, 1, 8, 8)
    whole = pictures.decode_video(latents)
    pictures.set_tiling(True, size=32)
    tiled = pictures.decode_video(latents)
    pictures.set_tiling(True)
    assert torch.equal(pictures.decode_video(latents), whole)
    pictures.set_tiling(False)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)


@pytest.mark.feature("C028")
@pytest.mark.parametrize("call", COGVIDEOX.calls, ids=str)
def test_output_equals_the_recorded_one(recorded: CogVideoX, call: Call) -> None:
    if call.op == "encode":
        moments = recorded.encode_moments(call.inputs["x"])
        assert_close(call, {"moments": moments, "mode": moments.chunk(2, dim=1)[0]})
    else:
        assert_close(call, {"sample": recorded.decode_video(call.inputs["z"] * recorded.config.scaling_factor)})


@pytest.mark.feature("C028")
@pytest.mark.parametrize(("latent_frames", "runs"), [(1, [1]), (2, [8]), (3, [9]), (5, [9, 8])])
def test_a_stream_gives_the_same_frames(recorded: CogVideoX, latent_frames: int, runs: list[int]) -> None:
    latents = torch.randn(1, 4, latent_frames, 2, 2)
    parts = list(recorded.decode_stream(latents))
    assert [part.shape[2] for part in parts] == runs
    whole = recorded.decode(1 / recorded.config.scaling_factor * latents).sample
    assert torch.equal(torch.cat(parts, dim=2), whole)


@pytest.mark.feature("C028", "C041")
@pytest.mark.parametrize("frames", [1, 9, 17])
def test_lengths_that_are_rounded_to_come_back(recorded: CogVideoX, frames: int) -> None:
    compression = recorded.compression
    assert compression.round_frames(frames + 7) == frames
    latents = recorded.encode_video(torch.rand(1, 3, frames, 16, 16))
    assert latents.shape == compression.latent_shape(Geometry(16, 16, frames))
    assert recorded.decode_video(latents).shape[2] == frames


@pytest.mark.feature("C028")
def test_other_lengths_are_refused(recorded: CogVideoX) -> None:
    with pytest.raises(InvalidRequest, match="encodes 1 \\+ 4k frames, not '8'"):
        recorded.encode_video(torch.rand(1, 3, 8, 16, 16))


@pytest.mark.feature("C028")
def test_large_frames_are_tiled(recorded: CogVideoX) -> None:
    latents = torch.randn(1, 4, 3, 8, 7)
    whole = recorded.decode_video(latents)
    recorded.set_tiling(True, size=(48, 40))
    tiled = recorded.decode_video(latents)
    recorded.set_tiling(False)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)


def test_tiles_that_would_not_join_are_refused(recorded: CogVideoX) -> None:
    with pytest.raises(InvalidRequest, match="tiles of '32x32' pixels"):
        recorded.set_tiling(True, size=(32, 32))


@pytest.mark.parametrize(("kind", "config"), [(KL2d, KL2D_CONFIG), (CogVideoX, COGVIDEOX_CONFIG)])
def test_all_that_a_pipeline_asks_for_is_there(kind: type[Any], config: dict[str, Any]) -> None:
    vae = kind(**config)
    assert isinstance(vae, VideoVAE)
    assert isinstance(vae, SupportsTiling)
    assert isinstance(vae, SupportsMaps)
    pixels = torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad():
        draws = [vae.encode_video(pixels, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert vae.resize_map(torch.ones(1, 1, 1, 16, 16), (1, 2, 2), scaled=True).unique().item() == pytest.approx(
        vae.config.scaling_factor
    )
