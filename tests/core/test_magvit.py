"""The video VAE: parity with the recorded reference, chunks, tiles and lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLMagvit
from tests.golden import Call, assert_close, load_case

from easyanimate_core.data import Geometry
from easyanimate_core.errors import CheckpointMismatch, InvalidRequest
from easyanimate_core.testing.memory import PeakMemory
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit, passes

CASE = load_case("vae_cache_mag")
LEFTOVER = ("force_upcast", "sample_size")


@pytest.fixture(scope="module")
def recorded() -> Magvit:
    vae = Magvit(**{name: value for name, value in CASE.config.items() if name not in LEFTOVER}).eval()
    vae.load_state_dict(CASE.state_dict(), strict=True)
    return vae


@pytest.fixture(scope="module")
def tiny() -> Magvit:
    torch.manual_seed(0)
    return Magvit(**VAE_CONFIG).eval()


def run(vae: Magvit, call: Call) -> dict[str, torch.Tensor]:
    switches: dict[str, Any] = call.kwargs["set_attributes"]
    vae.set_tiling(bool(switches.get("use_tiling")), size=switches.get("tile_sample_min_size", 384))
    with torch.no_grad():
        if call.op == "encode":
            moments = vae.encode_moments(call.inputs["x"])
            return {"moments": moments, "mode": moments.chunk(2, dim=1)[0]}
        return {"sample": vae.decode_video(call.inputs["z"] * vae.config.scaling_factor)}


@pytest.mark.feature("C023", "C024", "C026")
@pytest.mark.parametrize("call", CASE.calls, ids=str)
def test_output_equals_the_recorded_one(recorded: Magvit, call: Call) -> None:
    assert_close(call, run(recorded, call))
    recorded.set_tiling(False, size=384)


def test_the_released_size_has_the_published_parameter_count() -> None:
    released = {"latent_channels": 16, "mid_block_use_attention": False, "spatial_group_norm": True}
    with torch.device("meta"):
        vae = Magvit(**released, cache_mag_vae=True, slice_mag_vae=False)
    assert (sum(p.numel() for p in vae.parameters()), len(vae.state_dict())) == (244_375_507, 228)


@pytest.mark.feature("C023")
@pytest.mark.parametrize(("frames", "latent_frames"), [(1, 1), (5, 2), (9, 3), (49, 13)])
def test_frames_become_latent_frames_and_come_back(tiny: Magvit, frames: int, latent_frames: int) -> None:
    with torch.no_grad():
        latents = tiny.encode_video(torch.rand(1, 3, frames, 16, 16))
        assert latents.shape == tiny.compression.latent_shape(Geometry(16, 16, frames))
        assert latents.shape[2] == latent_frames
        assert tiny.decode_video(latents).shape == (1, 3, frames, 16, 16)


@pytest.mark.feature("C041")
def test_frames_are_rounded_down_to_what_can_be_coded(tiny: Magvit) -> None:
    asked = [1, 2, 4, 5, 6, 48, 49, 50]
    assert [tiny.compression.round_frames(n) for n in asked] == [1, 1, 1, 5, 5, 45, 49, 49]


@pytest.mark.parametrize("frames", [4, 7, 8, 10, 16, 18])
def test_other_frame_counts_are_refused(tiny: Magvit, frames: int) -> None:
    with pytest.raises(InvalidRequest, match=f"encodes 1 \\+ 4k frames, not '{frames}'"):
        tiny.encode_moments(torch.rand(1, 3, frames, 16, 16))


@pytest.mark.feature("C024")
def test_chunks_equal_one_pass(tiny: Magvit) -> None:
    pixels = torch.rand(1, 3, 17, 32, 16) * 2 - 1
    with torch.no_grad():
        moments = tiny.encode_moments(pixels)
        torch.testing.assert_close(tiny.encode_moments(pixels, whole=True), moments, atol=1e-5, rtol=1e-5)
        latents = moments.chunk(2, dim=1)[0]
        chunks = list(tiny.decode_stream(latents))
        assert [chunk.shape[2] for chunk in chunks] == [1, 4, 4, 4, 4]
        whole = next(tiny.decode_stream(latents, whole=True))
        torch.testing.assert_close(torch.cat(chunks, dim=2), whole, atol=1e-5, rtol=1e-5)
        assert torch.equal(torch.cat(chunks, dim=2), tiny.decode_video(latents))


@pytest.mark.feature("C025")
def test_gradients_reach_latents_without_the_cache(tiny: Magvit) -> None:
    """As reward training needs them: one decoded latent frame keeps its graph."""
    latents = torch.randn(1, 16, 3, 2, 2)
    with torch.no_grad():
        before = tiny.decode_video(latents)
    tiny.set_caching(False)
    learnt = latents[:, :, :1].clone().requires_grad_()
    frame = tiny.decode_video(learnt)
    frame.mean().backward()
    assert learnt.grad is not None
    assert learnt.grad.abs().sum() > 0
    with torch.no_grad():
        (whole,) = tiny.decode_stream(latents)
    tiny.set_caching(True)
    torch.testing.assert_close(frame, before[:, :, :1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole, before, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert [run.shape[2] for run in tiny.decode_stream(latents)] == [1, 4, 4]
        assert torch.equal(tiny.decode_video(latents), before)


@pytest.mark.feature("C024")
def test_runs_of_any_length_give_the_same(tiny: Magvit) -> None:
    """Norms look at single frames, so runs only bound memory."""
    torch.manual_seed(0)
    longer = Magvit(**{**VAE_CONFIG, "mini_batch_encoder": 8, "mini_batch_decoder": 2}).eval()
    longer.load_state_dict(tiny.state_dict())
    pixels = torch.rand(1, 3, 17, 16, 16)
    with torch.no_grad():
        latents = tiny.encode_video(pixels)
        torch.testing.assert_close(longer.encode_video(pixels), latents, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(longer.decode_video(latents), tiny.decode_video(latents), atol=1e-5, rtol=1e-5)


def test_large_frames_go_through_a_stage_one_by_one(tiny: Magvit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which changes what is held at once, and nothing else."""
    pixels, latents = torch.rand(1, 3, 9, 24, 16), torch.randn(1, 16, 3, 3, 2)

    def run() -> tuple[torch.Tensor, torch.Tensor, int]:
        with torch.no_grad(), PeakMemory() as memory:
            return tiny.encode_moments(pixels), tiny.decode_video(latents), memory.operations

    moments, frames, before = run()
    monkeypatch.setattr(passes, "_AT_ONCE", 12)
    pieces = run()
    assert pieces[2] > before
    torch.testing.assert_close(pieces[0], moments, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pieces[1], frames, atol=1e-5, rtol=1e-5)


def test_channels_last_gives_the_same(tiny: Magvit) -> None:
    """Where convolutions are faster with it, `vae.to(memory_format=torch.channels_last_3d)` is all there is to do."""
    other = Magvit(**VAE_CONFIG).eval()
    other.load_state_dict(tiny.state_dict())
    other.to(memory_format=torch.channels_last_3d)
    pixels = torch.rand(1, 3, 5, 16, 16)
    with torch.no_grad():
        latents = tiny.encode_video(pixels)
        torch.testing.assert_close(other.encode_video(pixels), latents, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other.decode_video(latents), tiny.decode_video(latents), atol=1e-5, rtol=1e-5)


def test_later_frames_do_not_change_earlier_latents(tiny: Magvit) -> None:
    pixels = torch.rand(1, 3, 9, 16, 16)
    other = pixels.clone()
    other[:, :, 5:] = 0
    with torch.no_grad():
        a, b = tiny.encode_video(pixels), tiny.encode_video(other)
    assert torch.equal(a[:, :, :2], b[:, :, :2])
    assert not torch.equal(a[:, :, 2], b[:, :, 2])


@pytest.mark.feature("C026")
def test_small_frames_are_not_tiled(tiny: Magvit) -> None:
    latents = torch.randn(1, 16, 2, 4, 4)
    with torch.no_grad():
        whole = tiny.decode_video(latents)
        tiny.set_tiling(True)
        assert torch.equal(tiny.decode_video(latents), whole)
        tiny.set_tiling(False)


@pytest.mark.feature("C026")
def test_tiles_may_be_taken_together(tiny: Magvit) -> None:
    """Rows of three tiles, of which the last is shorter; two samples."""
    pixels, latents = torch.rand(2, 3, 5, 40, 72), torch.randn(2, 16, 2, 5, 9)
    coded = []
    with torch.no_grad():
        for together in (1, 2):
            tiny.set_tiling(True, size=32, together=together)
            coded.append((tiny.encode_moments(pixels), tiny.decode_video(latents)))
        tiny.set_tiling(False, size=384)
    for one, two in zip(*coded, strict=True):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


@pytest.mark.feature("C026")
def test_slices_of_a_batch_equal_the_batch(tiny: Magvit) -> None:
    pixels = torch.rand(3, 3, 5, 16, 16)
    with torch.no_grad():
        together = tiny.decode_video(tiny.encode_video(pixels))
        tiny.set_slicing(True)
        apart = tiny.decode_video(tiny.encode_video(pixels))
        tiny.set_slicing(False)
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=1e-5)


@pytest.mark.feature("C026")
def test_upcast_computes_in_float32() -> None:
    vae = Magvit(**VAE_CONFIG, upcast_vae=True).half()
    assert vae.encode_video(torch.rand(1, 3, 1, 16, 16).half()).dtype == torch.float32


def test_sampling_follows_the_generator(tiny: Magvit) -> None:
    pixels = torch.rand(1, 3, 5, 16, 16)
    with torch.no_grad():
        draws = [tiny.encode_video(pixels, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_remembering_scheme_needs_norms_over_single_frames() -> None:
    with pytest.raises(CheckpointMismatch, match="'cache_mag_vae' to 'True' and 'spatial_group_norm' to 'False'"):
        Magvit(**{**VAE_CONFIG, "spatial_group_norm": False})


def test_a_config_must_name_a_scheme() -> None:
    with pytest.raises(CheckpointMismatch, match="names no temporal scheme"):
        Magvit(**{**VAE_CONFIG, "cache_mag_vae": False})


@pytest.mark.parametrize("setting", [{"mid_block_attention_type": "spatial_temporal"}, {"use_gc_blocks": [True] * 4}])
def test_layers_that_no_release_has_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(CheckpointMismatch, match="no release has"):
        Magvit(**{**VAE_CONFIG, "mid_block_use_attention": True, **setting})


def test_block_types_may_be_written_as_text() -> None:
    text = str(tuple(VAE_CONFIG["down_block_types"]))
    assert Magvit(**{**VAE_CONFIG, "down_block_types": text}).compression.temporal == 4


def test_diffusers_agrees() -> None:
    """The same weights under the same names give the same latents and pixels."""
    torch.manual_seed(0)
    ours = Magvit(**VAE_CONFIG).eval()
    theirs = AutoencoderKLMagvit(
        block_out_channels=(4, 4, 8, 8),
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=tuple(VAE_CONFIG["down_block_types"]),
        up_block_types=tuple(VAE_CONFIG["up_block_types"]),
    ).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    pixels = torch.rand(1, 3, 9, 32, 16) * 2 - 1
    with torch.no_grad():
        mode = theirs.encode(pixels).latent_dist.mode()
        torch.testing.assert_close(ours.encode_moments(pixels).chunk(2, 1)[0], mode, atol=1e-5, rtol=1e-5)
        decoded = theirs.decode(mode).sample
        torch.testing.assert_close(ours.decode_video(mode * 0.7125), decoded, atol=1e-5, rtol=1e-5)
