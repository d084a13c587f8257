"""The temporal schemes of V2, V3 and V4: parity with the recorded reference, lengths, streams and smoothing."""

from __future__ import annotations

import pytest
import torch
from tests.golden import Call, Case, assert_close, load_case
from torch import Tensor

from easyanimate_core.data import Geometry
from easyanimate_core.events import SILENT, CancelToken
from easyanimate_core.pipeline.decode import decoded, to_unit_range
from easyanimate_core.vae.magvit import Magvit

LEFTOVER = ("force_upcast", "sample_size")
CASES = {name: load_case(f"vae_{name}") for name in ("slice_mag", "slice_compression", "cache_compression")}
CALLS = [pytest.param(name, call, id=f"{name}-{call}") for name, case in CASES.items() for call in case.calls]
FRAMES_PER_RUN = {"slice_mag": 9, "slice_compression": 8, "cache_compression": 8}


def built(case: Case) -> Magvit:
    vae = Magvit(**{name: value for name, value in case.config.items() if name not in LEFTOVER}).eval()
    vae.load_state_dict(case.state_dict(), strict=True)
    return vae.requires_grad_(False)


@pytest.fixture(scope="module")
def vaes() -> dict[str, Magvit]:
    return {name: built(case) for name, case in CASES.items()}


@pytest.mark.feature("C024", "C026")
@pytest.mark.parametrize(("name", "call"), CALLS)
def test_output_equals_the_recorded_one(vaes: dict[str, Magvit], name: str, call: Call) -> None:
    vae, switches = vaes[name], call.kwargs["set_attributes"]
    vae.set_tiling(bool(switches.get("use_tiling")), size=switches.get("tile_sample_min_size", 384))
    if call.op == "encode":
        moments = vae.encode_moments(call.inputs["x"])
        outputs = {"moments": moments, "mode": moments.chunk(2, dim=1)[0]}
        assert moments.shape[2] == vae.compression.latent_frames(call.inputs["x"].shape[2])
    else:
        outputs = {"sample": vae.decode_video(call.inputs["z"] * vae.config.scaling_factor)}
    vae.set_tiling(False, size=384)
    assert_close(call, outputs)


def test_the_released_size_has_the_published_parameter_count() -> None:
    with torch.device("meta"):
        vae = Magvit()
    assert (sum(p.numel() for p in vae.parameters()), len(vae.state_dict())) == (245_979_879, 248)
    assert "decoder.mid_block.attentions.0.to_out.weight" in vae.state_dict()


@pytest.mark.feature("C024")
@pytest.mark.parametrize(
    ("name", "frames", "latent_frames", "decoded"),
    [
        ("slice_mag", 1, 1, 1),
        ("slice_mag", 9, 3, 9),
        ("slice_mag", 18, 6, 18),
        ("slice_mag", 10, 4, 10),
        ("slice_compression", 1, 1, 1),
        ("slice_compression", 8, 2, 8),
        ("slice_compression", 9, 3, 9),
        ("slice_compression", 16, 4, 16),
        ("cache_compression", 1, 1, 1),
        ("cache_compression", 8, 2, 8),
        ("cache_compression", 9, 3, 12),  # the scheme's own: decoding makes four frames of the lone first one, too
    ],
)
def test_frames_become_latent_frames_and_come_back(
    vaes: dict[str, Magvit], name: str, frames: int, latent_frames: int, decoded: int
) -> None:
    latents = vaes[name].encode_video(torch.rand(1, 3, frames, 16, 16))
    assert latents.shape == vaes[name].compression.latent_shape(Geometry(16, 16, frames))
    assert latents.shape[2] == latent_frames
    assert vaes[name].decode_video(latents).shape == (1, 3, decoded, 16, 16)


@pytest.mark.feature("C041")
@pytest.mark.parametrize("name", CASES)
def test_frames_are_rounded_down_to_whole_runs(vaes: dict[str, Magvit], name: str) -> None:
    run, compression = FRAMES_PER_RUN[name], vaes[name].compression
    asked = [1, run - 1, run, run + 1, 3 * run + 1, 144]
    assert [compression.round_frames(n) for n in asked] == [1, 1, run, run, 3 * run, 144]
    assert compression.latent_frames(144) == {9: 48, 8: 36}[run]


@pytest.mark.feature("C024")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("latent_frames", [1, 4, 5])
def test_a_stream_gives_the_same_frames(vaes: dict[str, Magvit], name: str, latent_frames: int) -> None:
    latents = torch.randn(1, 4, latent_frames, 2, 3)
    runs = list(vaes[name].decode_stream(latents))
    assert torch.equal(torch.cat(runs, dim=2), vaes[name].decode_video(latents))
    expected = {
        "slice_mag": {1: [1], 4: [9, 1], 5: [9, 5]},
        "slice_compression": {1: [1], 4: [8, 8], 5: [1, 8, 8]},
        "cache_compression": {1: [1], 4: [8, 8], 5: [8, 8, 4]},
    }[name]
    assert [run.shape[2] for run in runs] == expected[latent_frames]


@pytest.mark.feature("C024")
def test_only_the_scheme_with_context_looks_ahead(vaes: dict[str, Magvit]) -> None:
    latents = torch.randn(1, 4, 6, 2, 2)
    other = latents.clone()
    other[:, :, 3] += 1
    for name, changes in (("slice_mag", False), ("slice_compression", True), ("cache_compression", False)):
        first, changed = (next(vaes[name].decode_stream(z)) for z in (latents, other))
        assert torch.equal(first, changed) is not changes


@pytest.mark.feature("C024")
@pytest.mark.parametrize("name", CASES)
def test_maps_share_time_evenly(vaes: dict[str, Magvit], name: str) -> None:
    """Only where the first frame is a latent frame by itself does it stay so in a map."""
    flat = torch.arange(8.0).reshape(1, 1, 8, 1, 1).expand(-1, -1, -1, 4, 4)
    resized = vaes[name].resize_map(flat, (2, 2, 2))
    assert resized[0, 0, :, 0, 0].tolist() == [1.5, 5.5]
    scaled = vaes[name].resize_map(flat, (2, 2, 2), scaled=True)
    assert torch.equal(scaled, resized * vaes[name].config.scaling_factor)


def smoothed(vae: Magvit, video: Tensor) -> list[Tensor]:
    return list(vae.smoothed(iter(video.split(4, dim=2))))


@pytest.mark.feature("C027")
@pytest.mark.parametrize("name", ["slice_mag", "slice_compression"])
def test_seams_are_smoothed_where_runs_do_not_know_of_each_other(vaes: dict[str, Magvit], name: str) -> None:
    vae, run = vaes[name], FRAMES_PER_RUN[name]
    video = torch.rand(1, 3, 2 * run, 16, 16) * 2.2 - 1.1
    (made,) = smoothed(vae, video)
    a = run // 2
    video = video.clamp(-1, 1)
    assert torch.equal(made[:, :, :a], video[:, :, :a])
    assert torch.equal(made[:, :, -(run - a) :], video[:, :, -(run - a) :])
    middle = video[:, :, a : a + run]
    again = vae.decode_video(vae.encode_video(middle))
    assert torch.equal(made[:, :, a : a + run], ((middle + again) / 2).clamp(-1, 1))


@pytest.mark.feature("C027")
@pytest.mark.parametrize("name", ["slice_mag", "slice_compression"])
def test_one_run_has_no_seams(vaes: dict[str, Magvit], name: str) -> None:
    video = torch.rand(1, 3, FRAMES_PER_RUN[name], 16, 16)
    assert torch.equal(torch.cat(smoothed(vaes[name], video), dim=2), video)


@pytest.mark.feature("C027")
def test_a_scheme_with_a_cache_is_not_smoothed(vaes: dict[str, Magvit]) -> None:
    video = torch.rand(1, 3, 16, 16, 16) * 3
    parts = smoothed(vaes["cache_compression"], video)
    assert [part.shape[2] for part in parts] == [4, 4, 4, 4]
    assert torch.equal(torch.cat(parts, dim=2), video)


@pytest.mark.feature("C027")
@pytest.mark.parametrize(
    ("name", "smooths"), [("slice_mag", True), ("slice_compression", True), ("cache_compression", False)]
)
def test_a_pipeline_smooths_where_the_scheme_does(vaes: dict[str, Magvit], name: str, smooths: bool) -> None:
    vae, latents = vaes[name], torch.randn(1, 4, 6, 2, 2)
    plain = vae.decode_video(latents)
    made = torch.cat(list(decoded(vae, latents, plain.shape[2], SILENT, CancelToken())), dim=2)
    (smoothed_once,) = vae.smoothed(iter([plain]))
    assert torch.equal(made, to_unit_range(smoothed_once))
    assert torch.equal(made, to_unit_range(plain)) is not smooths


@pytest.mark.feature("C025")
def test_without_the_cache_all_latent_frames_are_one_run(vaes: dict[str, Magvit]) -> None:
    vae, latents = vaes["cache_compression"], torch.randn(1, 4, 4, 2, 2)
    before = list(vae.decode_stream(latents))
    vae.set_caching(False)
    assert [run.shape[2] for run in vae.decode_stream(latents)] == [16]
    vae.set_caching(True)
    assert torch.equal(torch.cat(list(vae.decode_stream(latents)), dim=2), torch.cat(before, dim=2))
