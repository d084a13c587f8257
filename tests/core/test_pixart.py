"""The spatial-temporal transformer of V1, V2 and V3: parity with the recorded reference, released sizes, conditions.

Source: tests/goldens/transformer_v1_grid, _v2_uvit, _v3_t2v, _v3_inp, recorded from the reference system in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easyanimate_core.data import Condition, Inlet, Inpainting, TextEmbedding, wire
from easyanimate_core.denoisers.pixart import MotionOptions, PixArt
from easyanimate_core.denoisers.pixart.motion import EveryFrame, Everywhere, MotionModule, Reach
from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions, InvalidRequest
from easyanimate_core.interfaces import DeclaresInlets, Denoiser, Inpaints
from easyanimate_core.kernels.attention.reference import Matmul
from easyanimate_core.testing import DenoiserContract
from easyanimate_core.testing.tiny import v1, v3
from golden import Case, assert_close, load_case

CASES = ("transformer_v1_grid", "transformer_v2_uvit", "transformer_v3_t2v", "transformer_v3_inp")
CALLS = [(name, call.name) for name in CASES for call in load_case(name).calls]

V3_INLETS = (
    Inlet("mask", "channels", 4),
    Inlet("masked_video", "channels", 4),
    Inlet("image_tokens", "tokens", 768),
)

# What the released configs of V2 and V3 say beyond the defaults, which are V1's.
MOTION = {
    "num_attention_heads": 8,
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_position_encoding_max_len": 4096,
    "temporal_attention_dim_div": 1,
    "block_size": 1,
}
EVEN = {**MOTION, "num_attention_heads": 16, "remove_time_embedding_in_photo": False}
ODD = {**EVEN, "attention_block_types": ["Temporal_Self", "Global_Self"]}
V2 = {"motion_module_type": "Vanilla", "motion_module_kwargs": MOTION, "enable_uvit": True}
V3 = {
    "in_channels": 12,
    "basic_block_type": "global_motionmodule",
    "motion_module_type": "Vanilla",
    "motion_module_kwargs_even": EVEN,
    "motion_module_kwargs_odd": ODD,
    "enable_uvit": True,
}

TIME = torch.tensor([500.0])


def golden(name: str) -> tuple[Case, PixArt]:
    case = load_case(name)
    model = PixArt(**case.config).eval()
    model.load_state_dict(case.state_dict(), strict=True)
    return case, model


def translated(inputs: dict[str, Any]) -> dict[str, Any]:
    """The recorded arguments as ours: what was concatenated or appended by its own argument comes through inlets."""
    given = dict(inputs)
    if "inpaint_latents" in given:
        mask, video = given.pop("inpaint_latents").chunk(2, dim=1)
        tokens = given.pop("clip_encoder_hidden_states")[:, None]
        given["conditions"] = {"mask": mask, "masked_video": video, "image_tokens": tokens}
        given["image_mask"] = given.pop("clip_attention_mask")
    return given


def run(model: PixArt, **inputs: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(**inputs)
    return out


def text(length: int = 3, width: int = 24, *, batch: int = 1) -> dict[str, Tensor]:
    return {
        "encoder_hidden_states": torch.randn(batch, length, width),
        "text_embedding_mask": torch.ones(batch, length),
    }


# --- parity ---------------------------------------------------------------------------------------


@pytest.mark.feature("C009")
@pytest.mark.parametrize(("case_name", "call_name"), CALLS)
def test_output_equals_the_recorded_one(case_name: str, call_name: str) -> None:
    case, model = golden(case_name)
    call = case.call(call_name)
    seen: dict[str, Tensor] = {}
    blocks = model.transformer_blocks
    blocks[0].register_forward_hook(lambda m, i, out: seen.update(block_first=out))
    blocks[-1].register_forward_hook(lambda m, i, out: seen.update(block_last=out))
    assert_close(call, {"sample": run(model, **translated(call.inputs)), **seen})


@pytest.mark.feature("C010")
@pytest.mark.parametrize("name", CASES)
def test_numbers_of_frames_are_made_as_they_are_stored(name: str) -> None:
    case = load_case(name)
    stored, fresh = case.state_dict(), PixArt(**case.config).state_dict()
    tables = [key for key in fresh if key.endswith("pos_encoder.pe")]
    assert tables
    for key in tables:
        torch.testing.assert_close(fresh[key], stored[key], atol=1e-5, rtol=0)


@pytest.mark.feature("C009", "C011")
@pytest.mark.parametrize(
    ("config", "parameters", "entries"),
    [
        ({"basic_block_type": "basic"}, 1_429_029_536 - 818_173_440, 603),
        ({}, 1_429_029_536, 1387),
        (V2, 1_446_296_864, 1413),
        ({**V2, "sample_size": 128}, 1_446_789_920, 1421),
        (V3, 1_538_364_704, 1417),
    ],
    ids=["PixArt", "V1", "V2", "V2 told sizes", "V3 InP"],
)
def test_released_sizes_have_the_published_parameter_counts(
    config: dict[str, Any], parameters: int, entries: int
) -> None:
    with torch.device("meta"):
        model = PixArt(**config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries


# --- conditions -----------------------------------------------------------------------------------


@pytest.mark.feature("C009")
def test_it_signs_the_contract_of_a_denoiser() -> None:
    model = PixArt(**load_case("transformer_v3_inp").config)
    assert isinstance(model, Denoiser)
    assert isinstance(model, DeclaresInlets)
    assert isinstance(model, Inpaints)
    assert model.inpainting == Inpainting("encoded", noised=False, blank=False)


@pytest.mark.feature("C009")
def test_the_second_half_of_the_prediction_is_the_variance() -> None:
    _, model = golden("transformer_v3_t2v")
    out = run(model, hidden_states=torch.randn(1, 4, 4, 8, 8), timestep=TIME, **text())
    assert model.latent_channels == 4
    assert out.shape == (1, 8, 4, 8, 8)


@pytest.mark.feature("C016")
def test_a_picture_of_zeros_is_no_picture() -> None:
    """The unguided half of a batch gets zeros; without the inlet, and with a mask of zeros, it is the same."""
    _, model = golden("transformer_v3_inp")
    model.declare(V3_INLETS)
    latents = torch.randn(1, 4, 2, 4, 4)
    picture = Condition("image_tokens", torch.randn(1, 1, 768), torch.zeros(1, 1, 768), active=(0.6, 1.0))
    given = {"hidden_states": latents, "timestep": TIME, **text()}

    def told(conditions: list[Condition], **switches: Any) -> Tensor:
        wired = wire(model.inlets, conditions, latents, **switches)
        return run(model, **given, conditions=wired)

    without, seen = told([]), told([picture], progress=0.6)
    assert not torch.allclose(seen, without, atol=1e-3)
    assert torch.equal(told([picture], progress=0.5), without)
    torch.testing.assert_close(told([picture], progress=0.6, unconditional=True), without, atol=1e-6, rtol=0)
    wired = wire(model.inlets, [picture], latents, progress=0.6)
    masked = run(model, **given, conditions=wired, image_mask=torch.zeros(1, 8))
    torch.testing.assert_close(masked, without, atol=1e-6, rtol=0)


@pytest.mark.feature("C009")
def test_padding_is_not_attended() -> None:
    _, model = golden("transformer_v1_grid")
    latents, states = torch.randn(1, 4, 2, 4, 4), torch.randn(1, 6, 24)
    other = states.clone()
    other[:, 4:] += 1
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    one, two, short = (
        run(model, hidden_states=latents, timestep=TIME, encoder_hidden_states=s, text_embedding_mask=m)
        for s, m in ((states, mask), (other, mask), (states[:, :4], mask[:, :4]))
    )
    assert torch.equal(one, two)
    torch.testing.assert_close(one, short, atol=1e-5, rtol=0)


@pytest.mark.feature("C009")
def test_models_for_many_sizes_are_told_the_size() -> None:
    """PixArt-α's micro-conditions: height and width in pixels, and their ratio."""
    config = {**v1.TRANSFORMER_CONFIG, "attention_head_dim": 48, "cross_attention_dim": 96, "sample_size": 128}
    model = PixArt(**config).eval()
    given = {"hidden_states": torch.randn(1, 4, 1, 4, 8), "timestep": TIME, **text(width=32)}
    own = run(model, **given)
    assert torch.equal(own, run(model, **given, size=torch.tensor([[32.0, 64.0]])))
    assert not torch.equal(own, run(model, **given, size=torch.tensor([[64.0, 32.0]])))
    assert not torch.equal(own, run(model, **given, size=torch.tensor([[64.0, 128.0]])))


@pytest.mark.parametrize(
    ("inlets", "message"),
    [
        ((), "has 12 input channels"),
        ((Inlet("control", "channels", 4),), "declares 4"),
        ((*V3_INLETS, Inlet("style", "vector", 1)), "no place for the inlet 'style'"),
    ],
)
def test_inlets_that_do_not_fit_are_refused(inlets: tuple[Inlet, ...], message: str) -> None:
    with pytest.raises(CheckpointMismatch, match=message):
        PixArt(**load_case("transformer_v3_inp").config).declare(inlets)


def test_what_was_not_wired_is_an_error() -> None:
    model = PixArt(**load_case("transformer_v3_inp").config)
    with pytest.raises(IncompatibleConditions, match="got 4 channels and expects 12"):
        model(torch.randn(1, 4, 1, 4, 4), TIME, torch.randn(1, 3, 24))
    with pytest.raises(IncompatibleConditions, match="got 2 text embeddings"):
        one = TextEmbedding(torch.randn(1, 3, 24), torch.ones(1, 3))
        model.embed(torch.randn(1, 12, 1, 4, 4), TIME, [one, one], {})
    with pytest.raises(CheckpointMismatch, match="no place for the inlet 'image_tokens'"):
        PixArt(**load_case("transformer_v3_t2v").config).declare(V3_INLETS[2:])


class TestV1(DenoiserContract):
    component = "pixart"
    config = v1.TRANSFORMER_CONFIG
    latents = (4, 2, 4, 8)


class TestV3ImageToVideo(DenoiserContract):
    component = "pixart"
    config = load_case("transformer_v3_inp").config
    inlets = V3_INLETS
    text = ((5, 24),)
    latents = (4, 2, 4, 6)


# --- motion ---------------------------------------------------------------------------------------


@pytest.mark.feature("C010", "C011")
@pytest.mark.parametrize(
    ("reach", "sequences"), [(EveryFrame(), (2 * 24, 3)), (EveryFrame(2), (2 * 6, 12)), (Everywhere(), (2, 72))]
)
def test_a_reach_cuts_a_video_and_puts_it_together_again(reach: Reach, sequences: tuple[int, int]) -> None:
    video = torch.randn(2, 3, 4, 6, 5)
    cut = reach.gather(video)
    assert tuple(cut.shape[:2]) == sequences
    assert torch.equal(reach.scatter(cut, video.shape), video)


@pytest.mark.feature("C010")
def test_a_sequence_holds_a_square_of_places_in_every_frame() -> None:
    frames, rows, columns = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(4), indexing="ij")
    places = torch.stack([frames, rows, columns], dim=-1)[None]
    third = EveryFrame(2).gather(places)[2].tolist()
    assert third == [[f, r, c] for f in (0, 1) for r in (2, 3) for c in (0, 1)]


@pytest.mark.feature("C010")
def test_squares_that_do_not_fit_are_refused_with_sizes_that_do() -> None:
    _, model = golden("transformer_v1_grid")
    with pytest.raises(InvalidRequest, match="'2x3' patches") as error:
        run(model, hidden_states=torch.randn(1, 4, 1, 4, 6), timestep=TIME, **text())
    assert "multiples of 32 pixels" in error.value.hint


@pytest.mark.feature("C010")
@pytest.mark.parametrize("kind", ["Vanilla", "VanillaGrid"])
def test_a_fresh_motion_module_changes_nothing(kind: Any) -> None:
    module = MotionModule(32, kind, MotionOptions(num_attention_heads=2))
    video = torch.randn(2, 3 * 4 * 6, 32)
    assert torch.equal(module(video, (3, 4, 6)), video)


@pytest.mark.feature("C010")
def test_a_single_frame_may_go_without_a_number() -> None:
    options = MotionOptions(num_attention_heads=2, remove_time_embedding_in_photo=True)
    module = MotionModule(32, "Vanilla", options)
    nn.init.normal_(module.temporal_transformer.proj_out.weight)
    photo, clip = torch.randn(1, 4, 32), torch.randn(1, 8, 32)
    before = module(photo, (1, 2, 2)), module(clip, (2, 2, 2))
    for name, buffer in module.named_buffers():
        assert name.endswith("pe")
        buffer.add_(1.0)
    assert torch.equal(module(photo, (1, 2, 2)), before[0])
    assert not torch.allclose(module(clip, (2, 2, 2)), before[1])


@pytest.mark.feature("C011")
def test_every_other_block_of_v3_sees_the_whole_video() -> None:
    model = PixArt(**load_case("transformer_v3_t2v").config)
    reaches = [
        [
            attention.reach
            for attention in block.attn_temporal.temporal_transformer.transformer_blocks[0].attention_blocks
        ]
        for block in model.transformer_blocks
    ]
    assert reaches == [[EveryFrame(), EveryFrame()], [EveryFrame(), Everywhere()]] * 2


@pytest.mark.feature("C011")
def test_long_skips_pair_the_last_of_the_first_half_with_the_first_of_the_second() -> None:
    """13 are stored, one is used in a model of 16 blocks: block 15 gets what block 12 made, through skip 0."""
    _, model = golden("transformer_v2_uvit")
    made: dict[str, Tensor] = {}
    model.transformer_blocks[12].register_forward_hook(lambda m, i, out: made.update(block_12=out))
    skips = model.long_connect_fc
    assert skips is not None
    for index, skip in enumerate(skips):
        skip.register_forward_hook(lambda m, i, out, index=index: made.update({f"skip_{index}": i[0]}))
    run(model, hidden_states=torch.randn(1, 4, 2, 4, 4), timestep=TIME, **text())
    assert sorted(made) == ["block_12", "skip_0"]
    assert torch.equal(made["skip_0"], made["block_12"])


def test_a_model_without_motion_makes_each_frame_by_itself() -> None:
    config = {**load_case("transformer_v1_grid").config, "basic_block_type": "basic", "motion_module_kwargs": None}
    model = PixArt(**config).eval()
    latents, words = torch.randn(1, 4, 2, 4, 4), text()
    together = run(model, hidden_states=latents, timestep=TIME, **words)
    for frame in range(2):
        alone = run(model, hidden_states=latents[:, :, frame : frame + 1], timestep=TIME, **words)
        torch.testing.assert_close(together[:, :, frame : frame + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.feature("C015")
@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_patches_are_of_one_frame_so_any_number_of_frames_comes_back(frames: int) -> None:
    """The original's patches over several frames, which no release has, are refused by name; see below."""
    _, model = golden("transformer_v3_t2v")
    tokens = model.embed(torch.randn(1, 4, frames, 4, 6), TIME, [TextEmbedding(*text().values())], {})
    assert tokens.grid == (frames, 2, 3)
    assert model.head(tokens).shape == (1, 8, frames, 4, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_3d": True}, "'patch_3d'"),
        ({"fake_3d": True}, "'fake_3d'"),
        ({"casual_3d": True}, "'casual_3d'"),
        ({"time_patch_size": 2}, "'time_patch_size'"),
        ({"norm_type": "layer_norm"}, "'norm_type'"),
        ({"basic_block_type": "kvcompression"}, "'kvcompression'"),
        ({"motion_module_type": "Sparse"}, "'Sparse'"),
        ({"motion_module_kwargs": {"heads": 8}}, "'heads'"),
        ({"motion_module_kwargs": {"attention_block_types": ["Spatial"]}}, "'Spatial'"),
    ],
)
def test_what_no_release_uses_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointMismatch, match=message):
        PixArt(**{**v1.TRANSFORMER_CONFIG, **change})


# --- running --------------------------------------------------------------------------------------


@pytest.mark.feature("C051")
def test_attention_goes_through_the_backend_that_is_set() -> None:
    case, model = golden("transformer_v3_t2v")
    asked: list[int] = []

    class Counting(Matmul):
        def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
            asked.append(k.shape[2])
            return super().__call__(q, k, v, **options)

    model.set_attention(Counting())
    call = case.call("b1")
    assert_close(call, {"sample": run(model, **translated(call.inputs))}, only=["sample"])
    # Per block: places of a frame, frames (and in every other block all tokens) in the motion module, words.
    assert asked == [24, 3, 3, 5, 24, 3, 72, 5] * 2


@pytest.mark.feature("C050")
def test_attention_can_be_computed_in_float32() -> None:
    model = PixArt(**{**v1.TRANSFORMER_CONFIG, "upcast_attention": True}).to(torch.bfloat16).eval()
    seen: set[torch.dtype] = set()

    class Watching(Matmul):
        def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
            seen.add(q.dtype)
            return super().__call__(q, k, v, **options)

    for name in ("attn1", "attn2"):
        getattr(model.transformer_blocks[0], name).backend = Watching()
    words = {name: value.bfloat16() for name, value in text(width=32).items()}
    out = run(model, hidden_states=torch.randn(1, 4, 1, 4, 4).bfloat16(), timestep=TIME, **words)
    assert seen == {torch.float32}
    assert out.dtype == torch.bfloat16


def test_gradients_are_the_same_with_checkpointing() -> None:
    case, model = golden("transformer_v2_uvit")
    call = case.calls[0]
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.enable_gradient_checkpointing()
            assert model.gradient_checkpointing
        model(**translated(call.inputs)).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


@pytest.mark.parametrize("generation", [v1, v3])
def test_tiny_checkpoints_repeat(generation: Any, tmp_path: Path) -> None:
    one, same, other = (
        (
            generation.write_transformer(tmp_path / str(i), seed=seed) / "diffusion_pytorch_model.safetensors"
        ).read_bytes()
        for i, seed in enumerate((0, 0, 1))
    )
    assert one == same
    assert one != other
