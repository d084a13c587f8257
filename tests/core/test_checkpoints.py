"""Loading is strict, streaming, and never trusts a file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from easyanimate_core.checkpoints.easyanimate import EasyAnimateFormat
from easyanimate_core.checkpoints.header import read_header
from easyanimate_core.checkpoints.keymap import KeyMap
from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.save import save_component
from easyanimate_core.checkpoints.source import component_folder, read_json, resolve, weight_files
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound, EasyAnimateError, UnsafeCheckpoint


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.register_buffer("table", torch.arange(6.0))


def on_meta() -> Model:
    with torch.device("meta"):
        return Model()


def written(folder: Path, tensors: dict[str, torch.Tensor], name: str = "diffusion_pytorch_model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return folder / name


def raw(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    """A safetensors file as we please."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str = "F32", shape: tuple[Any, ...] = (2,), start: Any = 0, stop: Any = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def test_a_header_is_read_without_tensors(tmp_path: Path) -> None:
    path = written(tmp_path, {"a": torch.ones(2, 3, dtype=torch.bfloat16), "b": torch.tensor(1)})
    header = read_header(path)
    assert header.tensors["a"].dtype == "BF16"
    assert header.tensors["a"].shape == (2, 3)
    assert header.tensors["b"].shape == ()


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry(stop=8)}, b"\0" * 7),
        ({"a": entry(stop=8)}, b"\0" * 9),
        ({"a": entry(shape=(3,), stop=8)}, b"\0" * 8),
        ({"a": entry(start=4, stop=12)}, b"\0" * 12),
        ({"a": entry(), "b": entry()}, b"\0" * 8),
        ({"a": entry(), "b": entry(start=4, stop=12)}, b"\0" * 12),
        ({"a": entry(dtype="F31")}, b"\0" * 8),
        ({"a": entry(shape=(-2,), stop=8)}, b"\0" * 8),
        ({"a": entry(shape=(2.0,))}, b"\0" * 8),
        ({"a": entry(shape=(True, 2))}, b"\0" * 8),
        ({"a": entry(start=8, stop=0)}, b"\0" * 8),
        ({"a": entry(dtype=["F32"])}, b"\0" * 8),
        ({"a": {"dtype": "F32"}}, b""),
        ({"a": 3}, b""),
        ({"a": entry(), "__metadata__": {"x": 3}}, b"\0" * 8),
        ([], b""),
        (b"{", b""),
        (b"\xff\xfe", b""),
        (b'{"a": 1, "a": 1}', b""),
        (b"[" * 100_000, b""),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: object, data: bytes) -> None:
    with pytest.raises(UnsafeCheckpoint):
        read_header(raw(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("length", [10**6, 2**63, 2**64 - 1])
def test_a_header_longer_than_its_file_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    with pytest.raises(UnsafeCheckpoint, match="says that its header alone has"):
        read_header(raw(tmp_path / "x.safetensors", {}, length=length))


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 20, 200, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = written(tmp_path, Model().state_dict())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UnsafeCheckpoint, match=r"x\.safetensors|diffusion_pytorch_model"):
        load_into(on_meta(), [path])


def test_a_module_on_meta_gets_everything(tmp_path: Path) -> None:
    source, target = Model(), on_meta()
    written(tmp_path, source.state_dict())
    assert load_into(target, weight_files(tmp_path))
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)
    assert all(parameter.requires_grad for parameter in target.parameters())


def test_loaded_weights_do_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    source, target = Model(), on_meta()
    path = written(tmp_path, source.state_dict())
    load_into(target, [path])
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(target.state_dict()["table"], source.state_dict()["table"])


def test_shards_equal_one_file(tmp_path: Path) -> None:
    source = Model()
    tensors = source.state_dict()
    names = sorted(tensors)
    written(tmp_path, {n: tensors[n] for n in names[:2]}, "m-1-of-2.safetensors")
    written(tmp_path, {n: tensors[n] for n in names[2:]}, "m-2-of-2.safetensors")
    weight_map = {n: f"m-{1 if n in names[:2] else 2}-of-2.safetensors" for n in names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    target = on_meta()
    load_into(target, weight_files(tmp_path))
    assert all(torch.equal(target.state_dict()[name], tensors[name]) for name in names)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..\\x.safetensors", "x.bin"]
)
def test_an_index_cannot_point_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UnsafeCheckpoint, match="names the file"):
        weight_files(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "m-1.safetensors"}}))
    with pytest.raises(CheckpointNotFound, match=r"'m-1\.safetensors'"):
        weight_files(tmp_path)


def test_what_does_not_fit_is_said_and_nothing_is_loaded(tmp_path: Path) -> None:
    tensors = Model().state_dict()
    tensors["inner.0.weight"] = torch.ones(4, 2)
    tensors["extra"] = tensors.pop("table")
    target = on_meta()
    with pytest.raises(CheckpointMismatch) as caught:
        load_into(target, [written(tmp_path, tensors)])
    said = caught.value.message
    assert "1 missing: table" in said
    assert "1 unexpected: extra" in said
    assert "inner.0.weight [4, 2] instead of [4, 3]" in said
    assert caught.value.hint
    assert all(parameter.is_meta for parameter in target.parameters())


def test_the_same_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        written(tmp_path, Model().state_dict(), name)
    with pytest.raises(CheckpointMismatch, match=r"'a\.safetensors' and in 'b\.safetensors'"):
        load_into(on_meta(), weight_files(tmp_path))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    tensors = Model().to(dtype).state_dict()
    tensors["inner.1.bias"][2] = value
    with pytest.raises(CheckpointMismatch, match=r"'inner\.1\.bias'.*NaN or infinite"):
        load_into(on_meta(), [written(tmp_path, tensors)])


def test_float8_is_checked_too(tmp_path: Path) -> None:
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in Model().state_dict().items()}
    load_into(target := on_meta(), [written(tmp_path, tensors)], dtype=torch.float32)
    assert target.inner[0].weight.dtype == torch.float32


def test_floating_tensors_are_cast_on_request(tmp_path: Path) -> None:
    path = written(tmp_path, Model().half().state_dict())
    as_stored, cast = on_meta(), on_meta()
    load_into(as_stored, [path])
    load_into(cast, [path], dtype=torch.float32)
    assert {p.dtype for p in as_stored.parameters()} == {torch.float16}
    assert {p.dtype for p in cast.parameters()} == {torch.float32}


def test_frozen_parameters_stay_frozen(tmp_path: Path) -> None:
    target = on_meta().requires_grad_(False)
    load_into(target, [written(tmp_path, Model().state_dict())])
    assert not any(parameter.requires_grad for parameter in target.parameters())


@pytest.mark.feature("C058")
def test_a_checkpoint_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no checkpoint folder"):
        resolve(tmp_path / "nowhere")
    (tmp_path / "transformer").mkdir()
    with pytest.raises(CheckpointNotFound, match="has no vae/, scheduler/") as caught:
        component_folder(resolve(tmp_path), "transformer", "vae", "scheduler")
    assert "transformer/, vae/, scheduler/" in caught.value.hint
    with pytest.raises(CheckpointNotFound, match="holds no weights"):
        weight_files(tmp_path / "transformer")


def test_a_broken_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text in ("{", "[]", "\0"):
        path.write_text(text)
        with pytest.raises(CheckpointMismatch) as caught:
            read_json(path)
        assert "\n" not in caught.value.message
    with pytest.raises(CheckpointNotFound):
        read_json(tmp_path / "other.json")


def test_a_component_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    source = Model()
    folder = save_component(tmp_path / "transformer", {"b": 1, "a": "ü"}, source.state_dict())
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert read_json(folder / "config.json") == {"a": "ü", "b": 1}
    load_into(on_meta(), weight_files(folder))
    before = (folder / "config.json").read_bytes()
    with pytest.raises(TypeError):
        save_component(folder, {"a": object()}, source.state_dict())
    assert (folder / "config.json").read_bytes() == before
    assert len(list(folder.iterdir())) == 2


def test_the_released_layout_is_recognised(tmp_path: Path) -> None:
    from easyanimate_core.testing import write_checkpoint

    folder = write_checkpoint(tmp_path)
    layout = EasyAnimateFormat()
    for name in ("transformer", "vae"):
        header = read_header(weight_files(folder / name)[0])
        assert layout.match(header) == 1.0
        assert layout.keymap(header) == KeyMap()


@pytest.mark.parametrize("size", [0, 1, 9, 64, 500])
def test_random_bytes_never_raise_anything_else(tmp_path: Path, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    for i in range(20):
        path = tmp_path / f"{i}.safetensors"
        path.write_bytes(bytes(torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8).tolist()))
        with pytest.raises(EasyAnimateError):
            read_header(path)
