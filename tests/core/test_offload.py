"""Placements: the same output as resident, weights where they are said to be, modules given back as they were found."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easyanimate_core.checkpoints.lora import LoraFile, LowRank, linear_names, write_lora
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.errors import ExecutionError
from easyanimate_core.interfaces import Foretells, KeepsAside, OffloadStrategy, Toolbox
from easyanimate_core.offload.blocks import find_tracks, parts_of, size_of
from easyanimate_core.offload.options import GroupOptions, SequentialOptions, StreamOptions
from easyanimate_core.offload.pack import Pack, tensors_of
from easyanimate_core.offload.parts import Group, Model, Sequential
from easyanimate_core.offload.resident import Resident
from easyanimate_core.offload.stream import Stream
from easyanimate_core.pipeline import load
from easyanimate_core.request import GenerationRequest
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG

ASKED = {"prompt": "a red circle", "size": "32x48", "frames": 5, "steps": 2, "seed": 1}
SLACK = 1.2
"""Packing aligns every tensor to 256 bytes; tiny tensors are mostly padding."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), max_length=32)


@pytest.fixture(scope="module")
def resident_frames(weights: Path) -> Tensor:
    return load("nano", weights=weights, offload="resident")(**ASKED).frames


@pytest.fixture
def toolbox(weights: Path) -> Toolbox:
    return load("nano", weights=weights, device="cpu", offload="resident").prepare()


def strategies() -> Iterator[Any]:
    for name, make in {
        "resident": Resident,
        "model": Model,
        "group": lambda: Group(GroupOptions(blocks=1)),
        "sequential": Sequential,
        "sequential-whole": lambda: Sequential(SequentialOptions(whole=("text",))),
        "stream": Stream,
        "stream-disk": lambda: Stream(StreamOptions(source="disk")),
        "stream-budget": lambda: Stream(StreamOptions(budget=130_000, slots=3)),
    }.items():
        yield pytest.param(make, id=name)


def modules(toolbox: Toolbox) -> dict[str, nn.Module]:
    return {role: module for role, module in toolbox.modules().items() if isinstance(module, nn.Module)}


def devices(toolbox: Toolbox) -> set[str]:
    return {tensor.device.type for module in toolbox.modules().values() for tensor in module.state_dict().values()}


def values(toolbox: Toolbox) -> dict[str, Tensor]:
    found = {role: module.state_dict() for role, module in modules(toolbox).items()}
    return {f"{role}.{name}": value.clone() for role, state in found.items() for name, value in state.items()}


@pytest.mark.feature("C047")
@pytest.mark.parametrize(
    "offload",
    [
        "model",
        {"name": "group", "blocks": 1},
        "sequential",
        "stream",
        {"name": "stream", "source": "disk"},
        {"name": "stream", "budget": "200KiB", "slots": 3},
    ],
    ids=str,
)
def test_the_video_is_bit_by_bit_that_of_resident(weights: Path, resident_frames: Tensor, offload: Any) -> None:
    pipe = load("nano", weights=weights, offload=offload)
    assert torch.equal(pipe(**ASKED).frames, resident_frames)
    assert torch.equal(pipe(**ASKED).frames, resident_frames), "and so is the second"


@pytest.mark.feature("C047")
@pytest.mark.parametrize("make", list(strategies()))
def test_modules_are_given_back_as_they_were_found(toolbox: Toolbox, make: Any) -> None:
    before = values(toolbox)
    objects = {role: [id(p) for p in module.parameters()] for role, module in modules(toolbox).items()}
    strategy: OffloadStrategy = make()
    strategy.attach(toolbox, torch.device("cpu"))
    with strategy.using("text", "denoiser"):
        pass
    strategy.detach()
    assert values(toolbox).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in values(toolbox).items())
    for role, module in modules(toolbox).items():
        assert [id(p) for p in module.parameters()] == objects[role], "the same parameters, in the same layers"
        for part in module.modules():
            assert not part._forward_hooks
            assert not part._forward_pre_hooks
    owners = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(*modules(toolbox).values())}
    assert len(owners) == len(tensors_of(*modules(toolbox).values())), "every tensor has memory of its own"


@pytest.mark.feature("C047")
@pytest.mark.parametrize("make", list(strategies()))
def test_what_is_foretold_is_what_is_held(toolbox: Toolbox, make: Any) -> None:
    strategy = make()
    assert isinstance(strategy, Foretells)
    assert isinstance(strategy, KeepsAside)
    foretold = {role: strategy.footprint(role, module) for role, module in modules(toolbox).items()}
    strategy.attach(toolbox, torch.device("cpu"))
    idle = sum(foot.idle for foot in foretold.values())
    assert idle <= strategy.held()[0] <= SLACK * idle
    for role in ("text", "denoiser", "vae"):
        with strategy.using(role):
            run(toolbox, role)
        others = sum(foot.idle for name, foot in foretold.items() if name != role)
        if role == "text":  # the first to run: nothing larger came before
            wanted = foretold[role].used + others
            assert wanted <= strategy.held()[1] <= SLACK * wanted
    most = max(foot.used + idle - foot.idle for foot in foretold.values())
    assert most <= strategy.held()[1] <= SLACK * most
    assert strategy.held()[0] <= SLACK * idle, "all is let go"
    strategy.detach()


def run(toolbox: Toolbox, role: str) -> None:
    with torch.no_grad():
        if role == "text":
            toolbox.text_encoders[0].encode(["a"])
        elif role == "denoiser":
            denoiser: Any = toolbox.denoiser
            denoiser(torch.randn(1, 16, 1, 4, 4), torch.tensor([500.0]), torch.randn(1, 3, 32))
        else:
            toolbox.vae.decode_video(torch.randn(1, 16, 1, 4, 4))


@pytest.mark.feature("C047")
def test_weights_are_on_the_device_when_their_part_runs_and_only_then(toolbox: Toolbox) -> None:
    denoiser: Any = toolbox.denoiser
    first, second = denoiser.transformer_blocks
    seen: list[tuple[str, bool, bool]] = []

    def at_home(module: nn.Module) -> bool:
        """Of tensors that come and go alone: norm1 of the first block stays."""
        return all(homes[id(p)] == p.data_ptr() for p in module.parameters())

    def watch(name: str) -> Any:
        return lambda *_: seen.append((name, at_home(first.ff), at_home(second.ff)))

    for make in (Group, Stream):
        strategy = make(GroupOptions(blocks=1)) if make is Group else make()
        strategy.attach(toolbox, torch.device("cpu"))
        homes = {id(p): p.data_ptr() for p in denoiser.parameters()}
        hooks = [block.attn1.register_forward_pre_hook(watch(name)) for name, block in (("1", first), ("2", second))]
        hooks += [
            first.norm2.norm.register_forward_hook(watch("1")),
            second.norm2.norm.register_forward_hook(watch("2")),
        ]
        with strategy.using("denoiser"):
            assert at_home(first.ff)
            assert not at_home(denoiser.proj), "the rest is there while the component is used"
            run(toolbox, "denoiser")
        assert at_home(denoiser), "all is at home again"
        assert set(seen) == {("1", False, True), ("2", True, False)}
        for hook in hooks:
            hook.remove()
        strategy.detach()
        seen.clear()


@pytest.mark.feature("C047")
def test_sequential_holds_one_layer_at_a_time(toolbox: Toolbox) -> None:
    strategy = Sequential()
    strategy.attach(toolbox, torch.device("cpu"))
    denoiser: Any = toolbox.denoiser
    layers = [m for m in denoiser.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    homes = {id(layer): layer.weight.data_ptr() for layer in layers}
    seen: list[int] = []

    def away(*_: object) -> None:
        seen.append(sum(layer.weight.data_ptr() != homes[id(layer)] for layer in layers))

    hooks = [layer.register_forward_hook(away, prepend=True) for layer in layers]
    with strategy.using("denoiser"):
        run(toolbox, "denoiser")
    assert len(seen) > 10
    assert set(seen) == {1}
    for hook in hooks:
        hook.remove()
    strategy.detach()


@pytest.mark.feature("C047")
@pytest.mark.parametrize("make", list(strategies()))
def test_an_error_inside_leaves_nothing_on_the_device(toolbox: Toolbox, make: Any) -> None:
    strategy = make()
    strategy.attach(toolbox, torch.device("cpu"))
    idle = strategy.held()[0]
    denoiser: Any = toolbox.denoiser

    def fail(*_: object) -> None:
        raise KeyError("stopped")

    hook = denoiser.transformer_blocks[1].ff.register_forward_pre_hook(fail)
    with pytest.raises(KeyError), strategy.using("denoiser"):
        run(toolbox, "denoiser")
    hook.remove()
    assert strategy.held()[0] == idle
    with strategy.using("denoiser"):
        run(toolbox, "denoiser")
    strategy.detach()


def test_a_component_that_is_used_twice_stays_until_both_are_done(toolbox: Toolbox) -> None:
    strategy = Model()
    strategy.attach(toolbox, torch.device("cpu"))
    with strategy.using("vae"):
        with strategy.using("vae"):
            inside = strategy.held()[0]
        assert strategy.held()[0] == inside > 0
    assert strategy.held()[0] == 0
    strategy.detach()


@pytest.mark.parametrize("make", list(strategies()))
def test_components_that_are_no_modules_are_left_alone(toolbox: Toolbox, make: Any) -> None:
    class Plain:
        def encode(self, prompts: object) -> None: ...

    strategy = make()
    strategy.attach(replace(toolbox, text_encoders=(Plain(),)), torch.device("cpu"))
    with strategy.using("text"):
        pass
    strategy.detach()


@pytest.mark.feature("C047", "C048", "C049")
def test_the_modes_of_the_original_have_their_meaning() -> None:
    def meant(mode: str, **more: Any) -> tuple[Any, Any]:
        request = GenerationRequest(prompt="a", offload=mode, **more)
        return request.offload.as_json(), request.storage.as_json()

    narrow = {"name": "easyanimate-core:float8", "everything": True, "scaled": False}
    core = "easyanimate-core"
    assert meant("model_cpu_offload") == (f"{core}:model", f"{core}:native")
    assert meant("model_cpu_offload_and_qfloat8") == (f"{core}:model", narrow)
    assert meant("sequential_cpu_offload") == (
        {"name": f"{core}:sequential", "whole": ["Qwen2VLTextEncoder"]},
        {**narrow, "only": ["Qwen2VLTextEncoder"]},
    )
    with pytest.raises(ValueError, match="'model_cpu_offload' decides the storage"):
        meant("model_cpu_offload", storage="int8")


@pytest.mark.feature("C048", "C049")
def test_sequential_cpu_offload_keeps_the_text_encoder_narrow_and_whole(weights: Path) -> None:
    pipe = load("nano", weights=weights, offload="sequential_cpu_offload")
    toolbox = pipe.prepare()
    encoder: Any = toolbox.text_encoders[0]
    kinds = {name: p.dtype for name, p in encoder.named_parameters()}
    assert not hasattr(encoder, "visual"), "the vision tower is never built"
    assert {dtype for name, dtype in kinds.items() if "embed_tokens" not in name} == {torch.float8_e4m3fn}
    assert kinds["model.embed_tokens.weight"] == torch.float32
    assert {p.dtype for p in modules(toolbox)["denoiser"].parameters()} == {torch.float32}
    text = size_of(tensors_of(encoder))
    with toolbox.offload.using("text"):
        assert toolbox.offload.held()[0] >= text  # type: ignore[attr-defined]
    assert toolbox.offload.held()[0] == 0  # type: ignore[attr-defined]
    assert pipe(**ASKED).frames.isfinite().all()


def write_random_lora(path: Path) -> Path:
    """A LoRA of rank 2 for every layer of the tiny denoiser."""
    with torch.device("meta"):
        model = MMDiT(**TRANSFORMER_CONFIG)
    shapes = {name: tuple(model.get_parameter(f"{name}.weight").shape) for name in linear_names(model)}
    layers = {
        ("denoiser", name): LowRank(torch.randn(2, width), torch.randn(height, 2), 1.0)
        for name, (height, width) in shapes.items()
    }
    return write_lora(LoraFile(path, "diffusers", layers, {}, 0), path, "kohya")


@pytest.mark.feature("C047", "C054")
def test_loras_come_and_go_with_their_layers(weights: Path, resident_frames: Tensor, tmp_path: Path) -> None:
    lora = str(write_random_lora(tmp_path / "lora.safetensors"))
    with_lora = load("nano", weights=weights)(**ASKED, loras=[lora]).frames
    assert not torch.equal(with_lora, resident_frames)
    for offload in ("sequential", "stream", {"name": "stream", "source": "disk"}):
        pipe = load("nano", weights=weights, offload=offload)
        assert torch.equal(pipe(**ASKED, loras=[lora]).frames, with_lora)
        assert torch.equal(pipe(**ASKED).frames, resident_frames)


def test_the_rest_holds_what_blocks_share() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Linear(8, 8)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(3))
            self.blocks[1][0].weight = self.table.weight
            self.blocks[2][1].weight = self.blocks[0][1].weight

    net = Net()
    parts = parts_of(net)
    assert [len(own) for own in parts.own] == [3, 3, 3]
    assert {id(t) for t in parts.rest} == {id(t) for t in (net.table.weight, net.table.bias, net.blocks[0][1].weight)}


def test_blocks_are_found_in_every_component(toolbox: Toolbox) -> None:
    found = {role: [len(run) for run in find_tracks(module)] for role, module in modules(toolbox).items()}
    assert found["denoiser"] == [2]
    assert found["text"] == [2]
    assert len(found["vae"]) == 2, "of the encoder and of the decoder"
    denoiser: Any = toolbox.denoiser
    steady = tensors_of(*denoiser.steady_modules())
    assert {id(t) for t in steady} <= {id(t) for t in parts_of(denoiser).rest}


def test_packed_tensors_keep_their_layout() -> None:
    tensors = [
        torch.randn(3, 5),
        torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last),
        torch.randint(-9, 9, (7,), dtype=torch.int8),
        torch.randn(4, 6).to(torch.float8_e4m3fn),
        torch.tensor(2.5),
    ]
    wanted, strides = copy.deepcopy(tensors), [t.stride() for t in tensors]
    pack = Pack(tensors)
    buffer, other = (torch.empty(pack.nbytes, dtype=torch.uint8) for _ in range(2))
    pack.fill(buffer)
    other.copy_(buffer)
    pack.bind(other)
    buffer.zero_()
    for got, want, stride in zip(tensors, wanted, strides, strict=True):
        assert torch.equal(got.float(), want.float())
        assert got.stride() == stride
        assert (got.data_ptr() - other.data_ptr()) % 256 == 0
    assert {t.untyped_storage().data_ptr() for t in tensors} == {other.data_ptr()}


def test_a_folder_that_is_not_there_is_named(toolbox: Toolbox) -> None:
    strategy = Stream(StreamOptions(source="disk", folder="no-such-folder"))
    with pytest.raises(ExecutionError, match="cannot be kept in 'no-such-folder'"):
        strategy.attach(toolbox, torch.device("cpu"))


def of_a_page(toolbox: Toolbox) -> list[Tensor]:
    """Tensors that are large enough for a file."""
    return [tensor for tensor in tensors_of(*modules(toolbox).values()) if tensor.nbytes >= 4096]


@pytest.mark.skipif(os.name == "nt", reason="a mapped file keeps its name there")
def test_files_have_their_room_and_no_name(toolbox: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[os.stat_result] = []
    mapped = torch.from_file

    def seen(path: str, **how: Any) -> Tensor:
        files.append(Path(path).stat())
        return mapped(path, **how)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch, "from_file", seen)
    strategy = Stream(StreamOptions(source="disk"))
    strategy.attach(toolbox, torch.device("cpu"))
    large = size_of(of_a_page(toolbox))
    assert sum(file.st_size for file in files) >= large > 0, "all of a page or more"
    assert sum(512 * file.st_blocks for file in files) >= large, "on the disk, not only promised"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing that could be left behind"
    strategy.detach()
    assert not list(tmp_path.iterdir())


@pytest.mark.feature("C047", "C054")
def test_weights_stay_in_their_files_when_loras_come_and_go(weights: Path, tmp_path: Path) -> None:
    lora = str(write_random_lora(tmp_path / "lora.safetensors"))
    pipe = load("nano", weights=weights, offload={"name": "stream", "source": "disk"}, dtype="bfloat16")
    toolbox = pipe.prepare()
    lie = {id(tensor): tensor.data_ptr() for tensor in of_a_page(toolbox)}
    for loras in ([lora], []):
        pipe(**ASKED, loras=loras)
        found = {id(tensor): tensor.data_ptr() for tensor in of_a_page(toolbox)}
        assert {key: found[key] for key in lie} == lie, "neither in main memory nor in another file"
    toolbox.offload.detach()
    assert {id(tensor): tensor.data_ptr() for tensor in of_a_page(toolbox)} == lie


@pytest.mark.feature("C047")
@pytest.mark.parametrize("source", ["ram", "disk"])
@pytest.mark.parametrize("loaded", ["before", "inside"])
def test_it_runs_in_inference_mode(weights: Path, resident_frames: Tensor, source: str, loaded: str) -> None:
    pipe = load("nano", weights=weights, offload={"name": "stream", "source": source})
    if loaded == "before":
        pipe.prepare()
    with torch.inference_mode():
        assert torch.equal(pipe(**ASKED).frames, resident_frames)
    if loaded == "before":
        assert torch.equal(pipe(**ASKED).frames, resident_frames), "and without it afterwards"


@pytest.mark.gpu
@pytest.mark.feature("C047")
@pytest.mark.parametrize("make", list(strategies()))
def test_on_a_gpu_too(toolbox: Toolbox, weights: Path, make: Any) -> None:
    strategy = make()
    strategy.attach(toolbox, torch.device("cuda"))
    denoiser: Any = toolbox.denoiser
    given = [torch.randn(1, 16, 1, 4, 4), torch.tensor([500.0]), torch.randn(1, 3, 32)]
    with torch.no_grad(), strategy.using("denoiser"):
        got = [denoiser(*(x.cuda() for x in given)).cpu() for _ in range(3)]
    strategy.detach()
    assert devices(toolbox) == {"cpu"}
    Resident().attach(toolbox, torch.device("cuda"))
    with torch.no_grad():
        want = denoiser(*(x.cuda() for x in given)).cpu()
    assert all(torch.equal(x, want) for x in got)
