"""The joint transformer: parity with the recorded reference, released sizes, and where ports differ."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import EasyAnimateTransformer3DModel
from tests.golden import Call, Case, assert_close, load_case
from torch.utils.checkpoint import checkpoint

from easyanimate_core.data import Inlet
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.denoisers.mmdit.block import Step
from easyanimate_core.denoisers.rotary import crop_region, rotary_2d, rotary_3d
from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions

V5_1 = {"num_attention_heads": 48, "text_embed_dim": 3584, "text_embed_dim_t5": None, "add_norm_text_encoder": True}
V5 = {"num_attention_heads": 48, "text_embed_dim": 1024, "text_embed_dim_t5": 2048}
TINY: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 3,
    "time_embed_dim": 32,
    "text_embed_dim": 24,
    "text_embed_dim_t5": None,
    "add_norm_text_encoder": True,
}


def golden(name: str) -> tuple[Case, MMDiT]:
    case = load_case(name)
    model = MMDiT(**case.config).eval()
    model.load_state_dict(case.state_dict(), strict=True)
    return case, model


def sample(model: MMDiT, call: Call) -> torch.Tensor:
    given = dict(call.inputs)
    conditions = {"masked": given.pop("inpaint_latents")} if "inpaint_latents" in given else {}
    with torch.no_grad():
        return model(**given, conditions=conditions)


@pytest.mark.feature("C013", "C005")
@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        pytest.param(case, call.name, id=f"{case}-{call.name}")
        for case in ("transformer_v5_1_t2v", "transformer_v5_t2v", "transformer_v5_inp")
        for call in load_case(case).calls
    ],
)
def test_output_equals_the_recorded_one(recorded: str, name: str) -> None:
    """V5 reads two texts, those of BERT first; its inpainting channels come after the latents."""
    case, model = golden(recorded)
    call = case.call(name)
    seen: dict[str, torch.Tensor] = {}
    model.time_embedding.register_forward_hook(lambda m, i, out: seen.update(temb=out))
    blocks = model.transformer_blocks
    blocks[0].register_forward_hook(lambda m, i, out: seen.update(block_first=out[0]))
    blocks[-1].register_forward_hook(lambda m, i, out: seen.update(block_last=out[0]))
    assert_close(call, {"sample": sample(model, call), **seen})


@pytest.mark.feature("C017")
@pytest.mark.parametrize("call", load_case("rope").calls, ids=str)
def test_rotary_tables_equal_the_recorded_ones(call: Call) -> None:
    kwargs = call.kwargs
    rows, columns = (kwargs[side] // 8 // kwargs["patch_size"] for side in ("height", "width"))
    if call.op == "rope3d":
        (cos, sin), base = rotary_3d(kwargs["embed_dim"], (kwargs["frames"], rows, columns)), (30, 45)
    else:
        (cos, sin), base = rotary_2d(kwargs["embed_dim"], (rows, columns)), (32, 32)
    stride = kwargs["row_stride"]
    crop = torch.tensor(crop_region((rows, columns), base))
    assert_close(call, {"cos": cos[::stride], "sin": sin[::stride], "crop": crop})


@pytest.mark.feature("C017")
def test_rotary_tables_are_made_once() -> None:
    assert rotary_3d(64, (2, 24, 42))[0] is rotary_3d(64, (2, 24, 42))[0]


@pytest.mark.parametrize(
    ("grid", "corners"),
    [((24, 42), ((2, 0), (28, 45))), ((42, 24), ((0, 14), (30, 31))), ((32, 32), ((0, 8), (30, 38))),
     ((30, 45), ((0, 0), (30, 45))), ((48, 84), ((2, 0), (28, 45)))],
)  # fmt: skip
def test_a_clip_is_laid_into_the_training_grid(grid: tuple[int, int], corners: tuple[Any, Any]) -> None:
    assert crop_region(grid, (30, 45)) == corners


@pytest.mark.feature("C013")
@pytest.mark.parametrize(
    ("config", "parameters", "entries"),
    [
        ({**V5, "num_layers": 48, "in_channels": 33}, 11_797_692_480, 1938),
        ({**V5, "num_layers": 36, "mmdit_layers": 18, "in_channels": 33}, 6_813_097_536, 1170),
        # Control has an input of 32 channels: one less for each of the 3072 × 2 × 2 weights.
        ({**V5, "num_layers": 48, "in_channels": 32}, 11_797_692_480 - 3072 * 4, 1938),
        ({**V5_1, "num_layers": 48, "in_channels": 33}, 11_799_265_856, 1937),
        ({**V5_1, "num_layers": 36, "mmdit_layers": 18, "in_channels": 33}, 6_814_670_912, 1169),
        ({**V5_1, "num_layers": 36, "mmdit_layers": 18}, 6_814_462_016, 1169),
        ({**V5_1, "num_layers": 36, "mmdit_layers": 18, "in_channels": 48}, 6_814_855_232, 1169),
        ({**V5_1, "num_layers": 36, "mmdit_layers": 18, "in_channels": 38}, 6_814_732_352, 1169),
    ],
)
def test_released_sizes_have_the_published_parameter_counts(
    config: dict[str, Any], parameters: int, entries: int
) -> None:
    with torch.device("meta"):
        model = MMDiT(**config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries


def test_shared_blocks_have_no_text_weights() -> None:
    names = MMDiT(**TINY, mmdit_layers=1).state_dict().keys()
    assert any(name.startswith("transformer_blocks.0.attn2.") for name in names)
    assert not any(name.startswith("transformer_blocks.1.") and ("attn2" in name or "txt_ff" in name) for name in names)


def test_padding_is_attended() -> None:
    _, model = golden("transformer_v5_1_t2v")
    latents, text = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 6, 24)
    other = text.clone()
    other[:, -1] += 1
    with torch.no_grad():
        assert not torch.allclose(
            model(latents, torch.tensor([500.0]), text), model(latents, torch.tensor([500.0]), other)
        )


@pytest.mark.feature("C013")
@pytest.mark.parametrize("extra", [0, 17, 22, 32])
def test_channel_inlets_widen_the_input_only(extra: int) -> None:
    model = MMDiT(**TINY, in_channels=16 + extra)
    model.declare([Inlet("condition", "channels", extra)] if extra else [])
    wired = {"condition": torch.zeros(1, extra, 1, 4, 4)} if extra else {}
    out = model(torch.randn(1, 16, 1, 4, 4), torch.tensor([1.0]), torch.randn(1, 3, 24), conditions=wired)
    assert out.shape == (1, 16, 1, 4, 4)


def test_inlets_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="has 33 input channels"):
        MMDiT(**TINY, in_channels=33).declare([Inlet("control", "channels", 16)])


def test_a_forgotten_condition_is_an_error() -> None:
    with pytest.raises(IncompatibleConditions, match="got 16 channels and expects 33"):
        MMDiT(**TINY, in_channels=33)(torch.randn(1, 16, 1, 4, 4), torch.tensor([1.0]), torch.randn(1, 3, 24))


@pytest.mark.feature("C005")
def test_two_text_encoders_are_joined() -> None:
    model = MMDiT(**{**TINY, "add_norm_text_encoder": False, "text_embed_dim_t5": 20})
    latents, time = torch.randn(1, 16, 1, 4, 4), torch.tensor([10.0])
    both = model(latents, time, torch.randn(1, 3, 24), torch.randn(1, 5, 20))
    one = model(latents, time, torch.randn(1, 3, 24))
    assert both.shape == one.shape == latents.shape


def test_an_embedding_that_nobody_reads_is_an_error() -> None:
    with pytest.raises(IncompatibleConditions, match="got 2 text embeddings and takes 1"):
        MMDiT(**TINY)(torch.randn(1, 16, 1, 4, 4), torch.tensor([1.0]), torch.randn(1, 3, 24), torch.randn(1, 3, 24))


# What diffusers calls the text branch's weights.
PORT_NAMES = {
    "attn2.to_q": "attn1.add_q_proj",
    "attn2.to_k": "attn1.add_k_proj",
    "attn2.to_v": "attn1.add_v_proj",
    "attn2.to_out.0": "attn1.to_add_out",
    "attn2.norm_q": "attn1.norm_added_q",
    "attn2.norm_k": "attn1.norm_added_k",
}


def ported(name: str) -> str:
    for ours, theirs in PORT_NAMES.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name


def both(mmdit_layers: int) -> tuple[MMDiT, EasyAnimateTransformer3DModel]:
    torch.manual_seed(0)
    ours = MMDiT(**TINY, mmdit_layers=mmdit_layers).eval()
    sizes = {"in_channels": 16, "out_channels": 16, "patch_size": 2, "mmdit_layers": mmdit_layers}
    theirs = EasyAnimateTransformer3DModel(**TINY, **sizes).eval()
    for name, parameter in ours.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and parameter.ndim == 1), std=0.2)
    theirs.load_state_dict({ported(name): value for name, value in ours.state_dict().items()}, strict=True)
    return ours, theirs


def difference(mmdit_layers: int, height: int, width: int) -> float:
    ours, theirs = both(mmdit_layers)
    latents, time, text = torch.randn(2, 16, 3, height, width), torch.tensor([999.0, 12.5]), torch.randn(2, 7, 24)
    with torch.no_grad():
        expected = theirs(latents, time, encoder_hidden_states=text, return_dict=False)[0]
        return float((ours(latents, time, text) - expected).abs().max())


def test_diffusers_agrees_where_its_grid_does() -> None:
    """All blocks with own text weights, 3:2, so that the crop starts at zero."""
    assert difference(mmdit_layers=3, height=8, width=12) <= 1e-5


def test_diffusers_differs_at_other_aspect_ratios() -> None:
    """The recorded cases (1:1 and others) pin us; this shows that the port is not a reference there."""
    assert difference(mmdit_layers=3, height=12, width=12) > 1e-3


def test_diffusers_differs_in_shared_blocks() -> None:
    """It leaves the text unprojected there, which shows as soon as another block follows."""
    assert difference(mmdit_layers=1, height=8, width=12) > 1e-3


def test_shared_blocks_project_the_text_too() -> None:
    """The recorded models have no block after a shared one, so the rule itself is pinned: `to_out` takes all tokens."""
    ours, _ = both(mmdit_layers=0)
    block = ours.transformer_blocks[0]
    video, text, temb = torch.randn(1, 6, 32), torch.randn(1, 3, 32), torch.randn(1, 32)
    cos, sin = rotary_3d(16, (1, 2, 3))
    with torch.no_grad():
        before = block([video, text], Step(temb, cos, sin))[1]
        block.attn1.to_out[0].bias += 1.0
        after = block([video, text], Step(temb, cos, sin))[1]
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_gradient(reentrant: bool) -> None:
    """The reentrant kind, which DeepSpeed's is too, follows only tensors that it is given by themselves."""
    ours, _ = both(mmdit_layers=2)
    latents, time, text = torch.randn(2, 16, 2, 4, 6), torch.tensor([999.0, 12.5]), torch.randn(2, 7, 24)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            ours.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=reentrant))
        ours.zero_grad()
        ours(latents, time, text).square().mean().backward()
        found.append({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7)
