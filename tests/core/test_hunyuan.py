"""V4's transformer: parity with the recorded reference, released sizes, and what its inputs mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.golden import Call, Case, assert_close, load_case

from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.lora import LoraFile, LowRank, linear_names, write_lora
from easyanimate_core.checkpoints.lora.names import dotted
from easyanimate_core.data import Inlet, Inpainting
from easyanimate_core.denoisers.hunyuan import Hunyuan
from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions
from easyanimate_core.interfaces import DeclaresInlets, Denoiser, Inpaints, UsesAttention
from easyanimate_core.kernels.attention.reference import Matmul
from easyanimate_core.pipeline.components import build_denoiser
from easyanimate_core.testing.tiny import v4

CALLS = [
    pytest.param(case, call.name, id=f"{case}-{call.name}")
    for case in ("transformer_v4_t2v", "transformer_v4_inp")
    for call in load_case(case).calls
]


def golden(name: str) -> tuple[Case, Hunyuan]:
    case = load_case(name)
    model = Hunyuan(**case.config).eval()
    model.load_state_dict(case.state_dict(), strict=True)
    return case, model


def arguments(call: Call) -> dict[str, Any]:
    """The recorded arguments as ours: one style and one original size are all that was ever trained."""
    given = dict(call.inputs)
    assert not given.pop("style").any()
    sizes = given.pop("image_meta_size")
    assert torch.equal(sizes[:, [0, 1, 4, 5]], torch.tensor([1024.0, 1024.0, 0.0, 0.0]).expand(len(sizes), -1))
    conditions = {}
    if "inpaint_latents" in given:
        conditions["masked"] = given.pop("inpaint_latents")
        conditions["image_tokens"] = given.pop("clip_encoder_hidden_states")
        given["image_mask"] = given.pop("clip_attention_mask")
    return {**given, "conditions": conditions, "size": sizes[:, 2:4]}


@pytest.mark.feature("C012", "C016")
@pytest.mark.parametrize(("name", "which"), CALLS)
def test_output_equals_the_recorded_one(name: str, which: str) -> None:
    """Among what is recorded is a fault that the weights were trained with: the picture gate's epsilon is its width."""
    case, model = golden(name)
    call = case.call(which)
    seen: dict[str, torch.Tensor] = {}
    model.time_extra_emb.register_forward_hook(lambda m, i, out: seen.update(temb=out))
    model.blocks[0].register_forward_hook(lambda m, i, out: seen.update(block_first=out))
    model.blocks[-1].register_forward_hook(lambda m, i, out: seen.update(block_last=out))
    with torch.no_grad():
        out = model(**arguments(call))
    assert_close(call, {"sample": out, **seen})


@pytest.mark.feature("C012")
@pytest.mark.parametrize(("channels", "parameters", "entries"), [(12, 1_954_844_704, 2397), (4, 1_516_534_048, 1585)])
def test_the_expected_geometry_has_the_expected_size(channels: int, parameters: int, entries: int) -> None:
    with torch.device("meta"):
        model = Hunyuan(in_channels=channels)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries
    assert [i for i, block in enumerate(model.blocks) if block.skip_linear is not None] == list(range(21, 40))


@pytest.fixture(scope="module")
def tiny() -> Hunyuan:
    return golden("transformer_v4_inp")[1]


def inputs(**changes: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    text, text_t5 = torch.randn(1, 7, 24, generator=generator), torch.randn(1, 6, 40, generator=generator)
    return {
        "hidden_states": torch.randn(1, 4, 2, 8, 8, generator=generator),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": text,
        "text_embedding_mask": torch.ones(1, 7, dtype=torch.long),
        "encoder_hidden_states_t5": text_t5,
        "text_embedding_mask_t5": torch.tensor([[1, 1, 1, 0, 0, 0]]),
        "conditions": {"masked": torch.zeros(1, 8, 2, 8, 8)},
        **changes,
    }


def shown(model: Hunyuan, **changes: Any) -> torch.Tensor:
    with torch.no_grad():
        sample: torch.Tensor = model(**inputs(**changes))
    return sample


def test_it_signs_its_contracts(tiny: Hunyuan) -> None:
    assert all(isinstance(tiny, contract) for contract in (Denoiser, DeclaresInlets, Inpaints, UsesAttention))
    assert tiny.inpainting == Inpainting("encoded", noised=False, blank=True)


def test_learned_variance_comes_after_the_prediction(tiny: Hunyuan) -> None:
    assert shown(tiny).shape == (1, 8, 2, 8, 8)
    assert tiny.latent_channels == 4


def test_positions_and_sizes_are_known_from_the_latents(tiny: Hunyuan) -> None:
    assert torch.equal(shown(tiny), shown(tiny, size=torch.tensor([[64.0, 64.0]])))
    assert not torch.equal(shown(tiny), shown(tiny, size=torch.tensor([[64.0, 128.0]])))


def test_padding_is_replaced_by_what_was_learnt_for_its_place(tiny: Hunyuan) -> None:
    """Of BERT's tokens: the pooler reads all of mT5's, padding too."""
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    other = inputs()["encoder_hidden_states"].clone()
    other[:, 4:] += 1
    assert torch.equal(
        shown(tiny, text_embedding_mask=mask),
        shown(tiny, text_embedding_mask=mask, encoder_hidden_states=other),
    )
    assert not torch.equal(shown(tiny), shown(tiny, encoder_hidden_states=other))


def test_texts_of_other_lengths_are_refused(tiny: Hunyuan) -> None:
    short = {"encoder_hidden_states": torch.randn(1, 5, 24), "text_embedding_mask": torch.ones(1, 5)}
    with pytest.raises(IncompatibleConditions, match=r"lengths \(5, 6\) and expects \(7, 6\)"):
        shown(tiny, **short)


@pytest.mark.feature("C016")
def test_no_picture_and_a_picture_of_zeros_are_the_same(tiny: Hunyuan) -> None:
    channels = inputs()["conditions"]
    tokens = torch.randn(1, 9, 20)
    without = shown(tiny)
    assert torch.equal(shown(tiny, conditions={**channels, "image_tokens": torch.zeros_like(tokens)}), without)
    assert torch.equal(
        shown(tiny, conditions={**channels, "image_tokens": tokens}, image_mask=torch.zeros(1, 4)), without
    )
    assert not torch.equal(shown(tiny, conditions={**channels, "image_tokens": tokens}), without)


def test_the_clip_may_be_as_long_as_there_are_positions_in_time(tiny: Hunyuan) -> None:
    with pytest.raises(IncompatibleConditions, match="513 latent frames"):
        long = torch.zeros(1, 4, 513, 2, 2)
        shown(tiny, hidden_states=long, conditions={"masked": torch.zeros(1, 8, 513, 2, 2)})


def test_inlets_are_declared_by_the_preset(tiny: Hunyuan) -> None:
    mask, video = Inlet("mask", "channels", 4), Inlet("masked_video", "channels", 4)
    tiny.declare([mask, video, picture := Inlet("image_tokens", "tokens", 20)])
    assert tiny.inlets == (mask, video, picture)
    with pytest.raises(CheckpointMismatch, match="need 8 channels; the preset declares 4"):
        tiny.declare([mask])
    with pytest.raises(CheckpointMismatch, match="has image tokens of width 20"):
        tiny.declare([mask, video, Inlet("image_tokens", "tokens", 768)])
    _, plain = golden("transformer_v4_t2v")
    with pytest.raises(CheckpointMismatch, match="no weights for image tokens"):
        plain.declare([picture])


def test_a_picture_for_a_text_model_is_an_error() -> None:
    _, model = golden("transformer_v4_t2v")
    with pytest.raises(IncompatibleConditions, match="no weights for image tokens"):
        shown(model, conditions={"image_tokens": torch.randn(1, 9, 20)})
    with pytest.raises(IncompatibleConditions, match="got 12 channels and expects 4"):
        shown(model)


@pytest.mark.parametrize("setting", ["basic_block_type", "time_position_encoding_type"])
def test_blocks_and_positions_that_no_release_has_are_refused(setting: str) -> None:
    with pytest.raises(CheckpointMismatch, match=setting), torch.device("meta"):
        Hunyuan(**{setting: "hybrid_attention"}, num_layers=1)


def test_the_attention_backend_is_used_everywhere(tiny: Hunyuan) -> None:
    class Counting(Matmul):
        calls = 0

        def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            Counting.calls += 1
            return super().__call__(*args, **kwargs)

    _, model = golden("transformer_v4_inp")
    model.set_attention(Counting())
    torch.testing.assert_close(shown(model), shown(tiny), rtol=1e-4, atol=1e-5)
    assert Counting.calls == 3 * 4, "to itself, to the text and to the picture, in four blocks"


def test_gradient_checkpointing_changes_no_gradient() -> None:
    def gradient(checkpointing: bool) -> torch.Tensor:
        _, model = golden("transformer_v4_inp")
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.train()(**inputs()).square().mean().backward()
        found = model.blocks[0].attn1.to_q.weight.grad
        assert found is not None
        return found

    assert torch.equal(gradient(True), gradient(False))


@pytest.mark.feature("C055")
def test_lora_layers_are_named_as_the_original_names_them(tmp_path: Path) -> None:
    case = load_case("lora_names_v4")
    with torch.device("meta"):
        paths = list(linear_names(Hunyuan(**case.config)))
    layers = {("denoiser", path): LowRank(torch.ones(1, 2), torch.ones(2, 1), 1.0) for path in paths}
    written = write_lora(LoraFile(tmp_path, "diffusers", layers, {}, 0), tmp_path / "x.safetensors", "kohya")
    stems = {name.split(".")[0] for name in load_file(written)}
    assert stems == set(case.calls[0].kwargs["names"]["add_lora_in_attn_temporal=False"])
    assert {dotted(stem.removeprefix("lora_unet__")) for stem in stems} == set(paths)


@pytest.mark.feature("C058")
def test_a_released_folder_loads_strictly(tmp_path: Path) -> None:
    folder = v4.write_transformer(tmp_path / "transformer")
    model = build_denoiser("HunyuanTransformer3DModel", folder, dtype=torch.float32)
    assert isinstance(model, Hunyuan)
    assert model.takes_picture
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    save_file({name: t for name, t in tensors.items() if name != "clip_padding"}, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointMismatch, match="1 missing: clip_padding"):
        build_denoiser("hunyuan", folder, dtype=torch.float32, path=tmp_path / "less.safetensors")


@pytest.mark.feature("C018")
def test_inlets_grow_as_recorded_when_asked(tmp_path: Path) -> None:
    """An image-to-video model starts from a text-to-video one: all that reads the picture is new."""
    call, source = load_case("loading_adapt").call("v4_t2v_to_inp"), load_case("transformer_v4_t2v")
    save_file(source.state_dict(), tmp_path / "x.safetensors")
    model = Hunyuan(**{**source.config, **call.kwargs["override"]})
    with pytest.raises(CheckpointMismatch, match="missing"):
        load_into(model, [tmp_path / "x.safetensors"])
    report = load_into(model, [tmp_path / "x.safetensors"], grow_inlets=True)
    assert (report.grown, report.loaded + len(report.fresh)) == (("pos_embed.proj.weight",), call.kwargs["total"])
    assert sorted(report.fresh) == sorted(call.kwargs["missing"])
    assert_close(call, {name: model.state_dict()[name] for name in call.expected})
