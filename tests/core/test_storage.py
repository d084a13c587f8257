"""Storages: what is kept in one byte, what it costs in precision, and that everything else still works on it.

Source of the recorded case: tests/goldens/fp8_v5_1, the reference's transformer with every parameter in float8.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easyanimate_core.checkpoints.lora import attach_lora, fuse_loras, read_lora
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.errors import CheckpointMismatch, InvalidOptions
from easyanimate_core.interfaces import Storage
from easyanimate_core.pipeline import load
from easyanimate_core.schema import Choice
from easyanimate_core.slots import STORAGE
from easyanimate_core.storage.linear import StoredLinear
from easyanimate_core.storage.narrow import Float8, Int8
from easyanimate_core.storage.native import Native
from easyanimate_core.storage.options import Float8Options, Int8Options
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG
from golden import Call, assert_close, load_case

FP8 = load_case("fp8_v5_1")
AS_THE_ORIGINAL = Float8Options(everything=True, scaled=False)


def recorded() -> Any:
    known = inspect.signature(MMDiT.__init__).parameters
    model: Any = MMDiT(**{key: value for key, value in FP8.config.items() if key in known})
    model.load_state_dict(FP8.state_dict("transformer"), strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch.manual_seed(1)
    return MMDiT(**TRANSFORMER_CONFIG).eval()


def forward(model: Any, call: Call) -> Tensor:
    dtype = getattr(torch, call.kwargs["compute_dtype"].removeprefix("torch."))
    given = call.inputs
    with torch.no_grad():
        sample: Tensor = model(
            given["hidden_states"].to(dtype),
            given["timestep"].to(dtype),
            given["encoder_hidden_states"].to(dtype),
            image_rotary_emb=given["image_rotary_emb"],
        )
    return sample


def bytes_of(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def off(got: Tensor, want: Tensor) -> float:
    return float((got - want).detach().norm() / want.detach().norm())


def answer(model: Any) -> Tensor:
    torch.manual_seed(3)
    with torch.no_grad():
        out: Tensor = model(torch.randn(1, 16, 2, 8, 8), torch.tensor([500.0]), torch.randn(1, 7, 32))
    return out


@pytest.mark.feature("C048")
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_everything_in_float8_is_as_the_original_has_it(name: str) -> None:
    call, model = FP8.call(name), recorded()
    dtype = getattr(torch, call.kwargs["compute_dtype"].removeprefix("torch."))
    for parameter in model.parameters():
        # The reference cast float32 to float8 at once; on the way through bfloat16 some would be rounded twice.
        parameter.data = parameter.data.to(torch.float8_e4m3fn).to(dtype)
    Float8(AS_THE_ORIGINAL).store("denoiser", model)
    parameters = dict(model.named_parameters())
    assert len(parameters) == call.kwargs["n_parameters"]
    assert all(p.dtype == torch.float8_e4m3fn for p in parameters.values())
    sample = forward(model, call)
    assert sample.dtype == dtype
    assert_close(call, {"sample": sample.float()}, only=["sample"])
    assert all(p.dtype == torch.float8_e4m3fn for p in model.parameters()), "kept so after the forward pass too"
    for kept in (key for key in call.expected if key.startswith("fp8.")):
        stored = parameters[kept.removeprefix("fp8.")].detach().view(torch.uint8)
        assert torch.equal(stored, call.expected[kept])


@pytest.mark.feature("C048")
def test_token_embeddings_are_left_alone() -> None:
    want = FP8.call("exclusion").kwargs["dtypes"]
    tree = nn.ModuleDict({"embed_tokens": nn.Embedding(4, 4), "layer": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    Float8(Float8Options(everything=True, scaled=False, only=("text",))).store("text", tree)
    assert {name: str(p.dtype) for name, p in tree.named_parameters()} == want


@pytest.mark.feature("C048")
@pytest.mark.parametrize(("storage", "most"), [(Float8(), 0.03), (Int8(), 0.01)], ids=["float8", "int8"])
def test_by_default_only_linear_weights_are_narrow(tiny: Any, storage: Storage, most: float) -> None:
    model = copy.deepcopy(tiny)
    storage.store("denoiser", model)
    for path, layer in model.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            narrow = isinstance(layer, nn.Linear) and name == "weight"
            assert (parameter.element_size() == 1) == narrow, f"{path}.{name}"
    assert model.state_dict().keys() == tiny.state_dict().keys()
    assert bytes_of(model) < 0.45 * bytes_of(tiny)
    assert 0 < off(answer(model), answer(tiny)) < most


def test_scales_keep_small_weights() -> None:
    linear = nn.Linear(64, 64, bias=False)
    nn.init.normal_(linear.weight, std=0.002)  # below 2**-6, float8 has no more than a fixed step
    x = torch.randn(8, 64)

    def error(options: Float8Options) -> float:
        model = nn.Sequential(copy.deepcopy(linear))
        Float8(options).store("denoiser", model)
        return off(model(x), linear(x))

    assert error(Float8Options()) < 0.04
    assert error(Float8Options(scaled=False)) > 0.2


def test_a_failing_layer_is_narrow_again() -> None:
    norm = nn.Sequential(nn.LayerNorm(4))
    Float8(AS_THE_ORIGINAL).store("denoiser", norm)
    with pytest.raises(RuntimeError):
        norm(torch.zeros(2, 3))
    assert norm[0].weight.dtype == torch.float8_e4m3fn


def test_parameters_without_a_layer_cannot_be_narrow() -> None:
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.padding = nn.Parameter(torch.zeros(3))
            self.layer = nn.Linear(2, 2)

    model = Loose()
    with pytest.raises(InvalidOptions, match="'padding' belongs to no layer") as caught:
        Float8(AS_THE_ORIGINAL).store("denoiser", model)
    assert "everything" in caught.value.hint
    assert model.layer.weight.dtype == torch.float32, "nothing has been changed"
    Float8().store("denoiser", model)
    assert model.padding.dtype == torch.float32


def test_shared_weights_stay_shared() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    Int8().store("denoiser", model)
    assert model[0].weight is model[1].weight
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize("only", ["denoiser", "MMDiT"])
def test_components_are_named_by_role_or_class(tiny: Any, only: str) -> None:
    model = copy.deepcopy(tiny)
    Int8(Int8Options(only=("text",))).store("denoiser", model)
    Native().store("denoiser", model)
    assert not any(isinstance(layer, StoredLinear) for layer in model.modules())
    Int8(Int8Options(only=(only,))).store("denoiser", model)
    assert any(isinstance(layer, StoredLinear) for layer in model.modules())


def test_bytes_can_be_counted_without_memory() -> None:
    with torch.device("meta"):
        model = MMDiT(**TRANSFORMER_CONFIG)
    Choice.of(STORAGE, "float8").create().store("denoiser", model)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert any(isinstance(layer, StoredLinear) for layer in model.modules())


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return all(torch.equal(now[name].view(torch.uint8), value.view(torch.uint8)) for name, value in before.items())


@pytest.mark.feature("C048", "C054")
def test_a_lora_is_attached_beside_narrow_weights_and_never_fused_into_them() -> None:
    case = load_case("lora_v5_1")
    known = inspect.signature(MMDiT.__init__).parameters
    model: Any = MMDiT(**{key: value for key, value in case.config.items() if key in known})
    model.load_state_dict(case.state_dict(), strict=True)
    Float8().store("denoiser", model.eval())
    file = read_lora(case.path / "lora.safetensors")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointMismatch, match="kept as 'float8_e4m3fn'") as caught:
        fuse_loras(model, [(file, 1.0)])
    assert "--storage native" in caught.value.hint
    assert unchanged(model, before)
    attached = attach_lora(model, file, 0.7, name="a", dtype=torch.float32)
    assert {p.dtype for n, p in model.named_parameters() if "lora_" in n} == {torch.float32}
    attached.detach()
    assert unchanged(model, before)


@pytest.mark.feature("C048")
@pytest.mark.parametrize("storage", ["float8", "int8"])
def test_a_video_is_nearly_the_same(tmp_path: Path, storage: str) -> None:
    weights = write_checkpoint(tmp_path / "tiny", max_length=32)
    asked = {"prompt": "a", "size": "32x48", "frames": 5, "steps": 2, "seed": 1}
    exact = load("nano", weights=weights)(**asked).frames
    pipe = load("nano", weights=weights, storage=storage)
    assert 0 < (pipe(**asked).frames - exact).abs().mean() < 0.01
    assert any(isinstance(layer, StoredLinear) for layer in pipe.prepare().denoiser.modules())  # type: ignore[attr-defined]
