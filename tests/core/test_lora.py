"""LoRA: three layouts, attached or fused, against recorded runs.

Source: tests/goldens/lora_v5_1 and lora_names_v5, recorded from the reference system in float32 on the CPU.
"""

from __future__ import annotations

import inspect
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from easyanimate_core.checkpoints.header import read_header
from easyanimate_core.checkpoints.lora import (
    LAYOUTS,
    LoraFile,
    LoraStack,
    LowRank,
    attach_lora,
    fuse_loras,
    linear_names,
    match_lora,
    read_lora,
    sshs_hashes,
    write_lora,
)
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.errors import CheckpointMismatch, ConfigError, UnknownFormat
from easyanimate_core.pipeline import load
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG
from golden import Call, assert_close, load_case
from recorder import SMALL

CASE = load_case("lora_v5_1")
CALL = CASE.calls[0]
FILE = CASE.path / "lora.safetensors"


def built(config: dict[str, Any]) -> MMDiT:
    known = inspect.signature(MMDiT.__init__).parameters
    return MMDiT(**{key: value for key, value in config.items() if key in known}).eval()


@pytest.fixture
def model() -> MMDiT:
    model = built(CASE.config)
    model.load_state_dict(CASE.state_dict(), strict=True)
    return model


def output(model: MMDiT) -> Tensor:
    with torch.no_grad():
        return model(**CALL.inputs)


def recorded(call: Call, **renamed: Tensor) -> None:
    assert_close(call, renamed, only=list(renamed))


@pytest.fixture(params=LAYOUTS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> LoraFile:
    """The recorded LoRA in each layout."""
    path = tmp_path / ("adapter" if request.param == "peft" else "lora.safetensors")
    return read_lora(write_lora(read_lora(FILE), path, request.param))


@pytest.mark.feature("C054")
def test_an_attached_lora_gives_the_recorded_output(model: MMDiT, file: LoraFile) -> None:
    recorded(CALL, base=output(model))
    lora = attach_lora(model, file, name="style")
    assert (lora.report.applied, lora.report.total) == (33, 33)
    recorded(CALL, hooked_multiplier_1=output(model))
    lora.set_weight(CALL.kwargs["multiplier"])
    recorded(CALL, hooked_multiplier_m=output(model))


@pytest.mark.feature("C054")
def test_a_fused_lora_gives_the_recorded_weights_and_unfuses_bit_by_bit(model: MMDiT, file: LoraFile) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = fuse_loras(model, [(file, CALL.kwargs["multiplier"])])
    after = model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == set(CALL.kwargs["changed_weights"])
    deltas = {f"delta.{name}": after[name] - before[name] for name in changed if f"delta.{name}" in CALL.expected}
    assert len(deltas) == 7
    recorded(CALL, merged=output(model), **deltas)
    fused.unfuse()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    recorded(CALL, unmerged=output(model))


@pytest.mark.feature("C054")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_unfusing_is_exact_in_short_number_formats(model: MMDiT, dtype: torch.dtype) -> None:
    model.to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = fuse_loras(model, [(read_lora(FILE), 0.37)])
    assert model.proj_out.weight.dtype == dtype
    fused.unfuse()
    fused.unfuse()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.feature("C054")
def test_several_at_once_add_up_and_leave_no_trace(model: MMDiT) -> None:
    names, base, file = list(model.state_dict()), output(model), read_lora(FILE)
    first, second = attach_lora(model, file, 0.25, name="a"), attach_lora(model, file, 0.35, name="b")
    recorded(CALL, hooked_multiplier_m=output(model))
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)
    first.detach()
    second.set_weight(CALL.kwargs["multiplier"])
    recorded(CALL, hooked_multiplier_m=output(model))
    second.detach()
    assert list(model.state_dict()) == names
    assert torch.equal(output(model), base)
    assert not hasattr(model, "peft_config")


@pytest.mark.feature("C055")
def test_the_layers_are_named_as_the_original_names_them(tmp_path: Path) -> None:
    case = load_case("lora_names_v5")
    paths = list(linear_names(built(case.config)))
    layers = {("denoiser", path): LowRank(torch.ones(1, 2), torch.ones(2, 1), 1.0) for path in paths}
    written = write_lora(LoraFile(tmp_path, "diffusers", layers, {}, 0), tmp_path / "x.safetensors", "kohya")
    stems = {name.split(".")[0] for name in load_file(written)}
    assert stems == set(case.calls[0].kwargs["names"]["add_lora_in_attn_temporal=False"])
    assert stems == {f"lora_unet__{path.replace('.', '_')}" for path in paths}


@pytest.mark.feature("C055")
def test_a_written_lora_equals_the_recorded_file_and_carries_the_hashes(tmp_path: Path) -> None:
    path = write_lora(read_lora(FILE), tmp_path / "lora.safetensors", "kohya")
    ours, theirs = load_file(path), load_file(FILE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    pattern = re.compile(r"lora_unet__[a-z0-9_]+\.(alpha|lora_(down|up)\.weight)")
    assert all(pattern.fullmatch(name) for name in ours)
    metadata = read_header(path).metadata
    expected = sshs_hashes(save(ours, {}))
    assert {name: metadata[name] for name in expected} == expected
    data = path.read_bytes()
    # The header is not part of the first hash, so the finished file has it too.
    assert sshs_hashes(data)["sshs_model_hash"] == metadata["sshs_model_hash"]
    assert re.fullmatch(r"[0-9a-f]{64}", metadata["sshs_model_hash"])
    assert re.fullmatch(r"[0-9a-f]{8}", metadata["sshs_legacy_hash"])


@pytest.mark.feature("C054", "C055")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conversion_there_and_back_is_bit_equal(tmp_path: Path, layout: str) -> None:
    there = write_lora(read_lora(FILE), tmp_path / ("there" if layout == "peft" else "there.safetensors"), layout)
    assert read_lora(there).layout == layout
    back = load_file(write_lora(read_lora(there), tmp_path / "back.safetensors", "kohya"))
    original = load_file(FILE)
    assert back.keys() == original.keys()
    assert all(torch.equal(back[name], original[name]) for name in original)


def test_diffusers_and_peft_find_their_own_names(tmp_path: Path) -> None:
    written = load_file(write_lora(read_lora(FILE), tmp_path / "x.safetensors", "diffusers"))
    assert "transformer.transformer_blocks.0.attn1.add_q_proj.lora_A.weight" in written
    assert not any("attn2" in name for name in written)
    folder = write_lora(read_lora(FILE), tmp_path / "adapter", "peft")
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 2, "LORA")


def test_peft_itself_loads_what_we_write(model: MMDiT, tmp_path: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    folder = write_lora(read_lora(FILE), tmp_path / "adapter", "peft")
    inject_adapter_in_model(LoraConfig.from_pretrained(str(folder)), model, "default")
    stored = load_file(folder / "adapter_model.safetensors")
    result = set_peft_model_state_dict(model, {name.removeprefix("base_model.model."): t for name, t in stored.items()})
    assert not result.unexpected_keys
    recorded(CALL, hooked_multiplier_1=output(model.eval()))


def test_a_layer_without_alpha_has_the_scale_1() -> None:
    down, up = torch.randn(2, 3), torch.randn(5, 2)
    assert torch.equal(LowRank(down, up).delta(), up @ down)
    assert torch.allclose(LowRank(down, up, 1.0).delta(), 0.5 * up @ down)
    assert LowRank(down[..., None, None], up[..., None, None]).delta().shape == (5, 3, 1, 1)


def changed(tmp_path: Path, edit: Any) -> Path:
    tensors = load_file(FILE)
    edit(tensors)
    save_file(tensors, tmp_path / "changed.safetensors")
    return tmp_path / "changed.safetensors"


@pytest.mark.feature("C054")
def test_what_found_no_place_is_told(model: MMDiT, tmp_path: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        for part in ("alpha", "lora_down.weight", "lora_up.weight"):
            tensors[f"lora_unet__transformer_blocks_7_attn1_to_q.{part}"] = tensors[
                f"lora_unet__proj_out.{part}"
            ].clone()
            tensors[f"lora_te_encoder_layer_0_q.{part}"] = tensors[f"lora_unet__proj_out.{part}"].clone()

    _, report = match_lora(read_lora(changed(tmp_path, edit)), model)
    assert (report.applied, report.total) == (33, 35)
    assert set(report.unused) == {"transformer_blocks_7_attn1_to_q", "text:encoder_layer_0_q"}
    assert "33 of 35 layers applied" in str(report)


@pytest.mark.feature("C054")
def test_a_lora_of_another_model_is_an_error(tmp_path: Path) -> None:
    other = built({**CASE.config, "num_attention_heads": 1})
    with pytest.raises(CheckpointMismatch, match=r"changes '[a-z_.0-9]+' as") as caught:
        attach_lora(other, read_lora(FILE), name="a")
    assert "another size" in caught.value.hint
    with pytest.raises(CheckpointMismatch, match=r"none of the 33 layers"):
        attach_lora(torch.nn.Linear(2, 2), read_lora(FILE), name="a")  # type: ignore[arg-type]


def broken(tmp_path: Path) -> Iterator[tuple[Path, type[Exception]]]:
    stem = "lora_unet__proj_out"
    for suffix, error in ((".lora_up.weight", CheckpointMismatch), (".lora_down.weight", CheckpointMismatch)):
        yield changed(tmp_path, lambda tensors, s=suffix: tensors.pop(stem + s)), error
    yield changed(tmp_path, lambda t: t.update({f"{stem}.lora_up.weight": torch.ones(64, 5)})), CheckpointMismatch
    yield changed(tmp_path, lambda t: t[f"{stem}.lora_up.weight"].fill_(torch.nan)), CheckpointMismatch
    yield changed(tmp_path, lambda t: t.update({f"{stem}.dora_scale": torch.ones(1)})), UnknownFormat
    save_file({"proj.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    yield tmp_path / "model.safetensors", UnknownFormat


def test_a_broken_lora_is_refused(tmp_path: Path) -> None:
    for path, error in broken(tmp_path):
        with pytest.raises(error):
            read_lora(path)
    with pytest.raises(ConfigError, match="no LoRA layout is called 'kohia'"):
        write_lora(read_lora(FILE), tmp_path / "x.safetensors", "kohia")


def test_a_stack_changes_only_what_differs(model: MMDiT, tmp_path: Path) -> None:
    said = io.StringIO()
    stack = LoraStack({"denoiser": model})
    base, names = output(model), list(model.state_dict())
    other = write_lora(read_lora(FILE), tmp_path / "other.safetensors", "diffusers")
    stack.use([(FILE, 0.2), (other, 0.4)], lambda text, _: said.write(text + "\n") and None)
    recorded(CALL, hooked_multiplier_m=output(model))
    assert said.getvalue().count("33 of 33 layers applied") == 2
    with pytest.raises(CheckpointMismatch):
        stack.use(
            [(FILE, 1.0), (changed(tmp_path, lambda t: t["lora_unet__proj_out.lora_up.weight"].fill_(torch.nan)), 1.0)],
            lambda *_: None,
        )
    recorded(CALL, hooked_multiplier_m=output(model))
    stack.use([(FILE, CALL.kwargs["multiplier"])], lambda text, _: said.write(text) and None)
    assert stack.paths == (FILE,)
    assert said.getvalue().count("\n") == 2
    recorded(CALL, hooked_multiplier_m=output(model))
    stack.use([], lambda *_: None)
    assert torch.equal(output(model), base)
    assert list(model.state_dict()) == names


@pytest.mark.feature("C054")
def test_a_text_encoder_s_part_is_attached_to_it_and_a_foreign_one_left_out(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    toolbox = load("nano", weights=folder).prepare()
    text = toolbox.text_encoders[0]
    assert isinstance(text, torch.nn.Module)
    said: list[tuple[str, bool]] = []
    stack = LoraStack({"denoiser": toolbox.denoiser, "text": text})  # type: ignore[dict-item]
    states = text.encode(["a red circle"]).states
    for layer, applied in (("model_layers_0_self_attn_q_proj", 28), ("encoder_block_0_layer_0_SelfAttention_q", 27)):
        tensors = load_file(random_lora(tmp_path / "l.safetensors", 0))
        tensors[f"lora_te_{layer}.lora_down.weight"] = torch.ones(1, 32)
        tensors[f"lora_te_{layer}.lora_up.weight"] = torch.ones(32, 1)
        path = tmp_path / f"{layer}.safetensors"
        save_file(tensors, path)
        stack.use([(path, 1.0)], lambda report, complete: said.append((report, complete)))
        assert f"{applied} of 28 layers applied" in said[-1][0]
        assert said[-1][1] == (applied == 28)
        assert torch.equal(text.encode(["a red circle"]).states, states) == (applied == 27)


@pytest.mark.feature("C054")
def test_a_pipeline_s_own_loras_come_before_the_request_s(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    files = {name: str(random_lora(tmp_path / f"{name}.safetensors", seed)) for seed, name in enumerate("ab")}
    plain = load("nano", weights=folder)
    always = load("nano", weights=folder, loras=[f"{files['a']}=0.5"])
    base = plain(**SMALL).frames
    with_a = always(**SMALL)
    assert [lora["weight"] for lora in with_a.notes["request"]["loras"]] == [0.5]
    assert not torch.equal(with_a.frames, base)
    assert torch.equal(plain(**SMALL, loras=[(files["a"], 0.5)]).frames, with_a.frames)
    both = always(**SMALL, loras=[{"path": files["b"]}])
    assert [lora["path"] for lora in both.notes["request"]["loras"]] == [files["a"], files["b"]]
    again = plain(**SMALL, loras=both.notes["request"]["loras"])
    assert torch.equal(both.frames, again.frames)
    assert torch.equal(plain(**SMALL).frames, base)
    assert torch.equal(always(**SMALL).frames, with_a.frames)


def random_lora(path: Path, seed: int) -> Path:
    """A LoRA of rank 2 for every layer of the tiny checkpoint's denoiser."""
    with torch.device("meta"):
        model = MMDiT(**TRANSFORMER_CONFIG)
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: tuple(model.get_parameter(f"{name}.weight").shape) for name in linear_names(model)}
    layers = {
        ("denoiser", name): LowRank(
            torch.randn(2, shape[1], generator=generator), torch.randn(shape[0], 2, generator=generator), 1.0
        )
        for name, shape in shapes.items()
    }
    return write_lora(LoraFile(path, "diffusers", layers, {}, 0), path, "kohya")
