"""Files made to hurt: each is refused in one line; none runs code, ends the interpreter or leaves half a model.

The other lies that a header can tell are in `test_checkpoints.py`.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from easyanimate_core.checkpoints.archive import Archive, read_pickled
from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.source import component_files, weight_files
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.errors import (
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    EasyAnimateError,
    UnsafeCheckpoint,
)
from easyanimate_core.pipeline import load
from easyanimate_core.presets import Preset, find_preset
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Bomb:
    """What a pickle with code looks like: unpickling it calls a function."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.witness,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


def variant() -> Preset:
    return find_preset("nano").model_copy(update={"latent_channels": 16})


def denoiser() -> MMDiT:
    with torch.device("meta"):
        return MMDiT(**TRANSFORMER_CONFIG)


def edited(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> Path:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    return path


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path: Path, header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# Each takes a good checkpoint's weight file and spoils it.


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def larger_than_it_is(file: Path) -> None:
    header, data = header_of(file)
    name = next(name for name in header if name != "__metadata__")
    header[name]["shape"][0] *= 2
    rewrite(file, header, data)


def beyond_the_end(file: Path) -> None:
    header, data = header_of(file)
    name = next(name for name in header if name != "__metadata__")
    header[name]["data_offsets"] = [len(data), 2 * len(data)]
    rewrite(file, header, data)


def exotic_type(file: Path) -> None:
    header, data = header_of(file)
    name = next(name for name in header if header[name].get("shape") == [32])
    header[name] |= {"dtype": "F8_E8M0", "shape": [128]}
    rewrite(file, header, data)


def overlapping(file: Path) -> None:
    header, data = header_of(file)
    pairs = [name for name in header if header[name].get("shape") == [32]]
    header[pairs[1]]["data_offsets"] = header[pairs[0]]["data_offsets"]
    rewrite(file, header, data)


def huge_header(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def header_without_end(file: Path) -> None:
    text = b'{"a":' * 50_000
    file.write_bytes(struct.pack("<Q", len(text)) + text)


def whole_numbers(file: Path) -> None:
    edited(file, lambda tensors: tensors.update({"proj.bias": torch.ones(32, dtype=torch.int32)}))


def infinite(file: Path) -> None:
    edited(file, lambda tensors: tensors["transformer_blocks.1.ff.net.2.weight"].view(-1)[-1:].fill_(torch.inf))


def not_a_number(file: Path) -> None:
    edited(file, lambda tensors: tensors["proj_out.bias"].fill_(torch.nan))


def misshapen(file: Path) -> None:
    edited(file, lambda tensors: tensors.update({"proj_out.bias": torch.ones(3)}))


def incomplete(file: Path) -> None:
    edited(file, lambda tensors: tensors.pop("proj_out.bias"))


def one_too_many(file: Path) -> None:
    edited(file, lambda tensors: tensors.update(extra=torch.ones(1)))


def still_arriving(file: Path) -> None:
    file.rename(file.with_name(f"{file.name}.incomplete"))


def arriving_beside(file: Path) -> None:
    file.with_name(f"{file.name}.aria2").write_bytes(b"")


def text_in_its_place(file: Path) -> None:
    file.write_text("<!DOCTYPE html><html>Access to this model is restricted</html>")


def pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 23600000000\n")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def link_out(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("elsewhere.safetensors")


def link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def index_out(file: Path) -> None:
    weight_map = {"proj.bias": "../vae/" + WEIGHTS}
    file.with_name("model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    file.unlink()


def index_twice(file: Path) -> None:
    tensors = load_file(file)
    for i in (1, 2):
        save_file(tensors, file.with_name(f"m-{i}.safetensors"))
    weight_map = dict.fromkeys(tensors, "m-1.safetensors") | {"proj.bias": "m-2.safetensors"}
    file.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


SPOILT = [
    truncated, exotic_type, larger_than_it_is, beyond_the_end, overlapping, huge_header, header_without_end,
    whole_numbers, infinite, not_a_number, misshapen, incomplete, one_too_many, still_arriving, arriving_beside,
    text_in_its_place, pointer, a_folder, link_out, link_to_nothing, link_to_itself, index_out, index_twice,
]  # fmt: skip


@pytest.mark.feature("C019")
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_checkpoint_is_refused_in_one_line(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder / "transformer" / WEIGHTS)
    pipe = load(variant(), weights=folder)
    for _ in range(2):  # the second time nothing of the first is left
        with pytest.raises(CheckpointError) as caught:
            pipe.prepare()
        assert "\n" not in caught.value.message
        assert caught.value.hint
        assert str(folder / "transformer") in caught.value.message or "stored in" in caught.value.message
    assert pipe._toolbox is None


def test_a_file_that_changes_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3)}, file)
    with Archive([file]) as archive:
        save_file({"b": torch.ones(3)}, file)
        with pytest.raises(UnsafeCheckpoint, match=r"'a' in .* cannot be read as F32"):
            archive.read("a")


def test_a_type_that_torch_has_no_use_for_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    rewrite(file, {"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, b"\0\0")
    with pytest.raises(EasyAnimateError):
        load_into(torch.nn.ParameterDict({"a": torch.ones(4)}), [file])


@pytest.mark.parametrize("spoil", [not_a_number, infinite, misshapen, incomplete, whole_numbers])
def test_a_module_stays_as_it_was(folder: Path, spoil: Callable[[Path], None]) -> None:
    file = folder / "transformer" / WEIGHTS
    spoil(file)
    empty, full = denoiser(), MMDiT(**TRANSFORMER_CONFIG)
    before = {name: tensor.clone() for name, tensor in full.state_dict().items()}
    for model in (empty, full):
        with pytest.raises(CheckpointMismatch):
            load_into(model, [file])
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in full.state_dict().items())


@pytest.mark.feature("C019")
@pytest.mark.parametrize("suffix", [".bin", ".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize(
    "wrap", [lambda bomb: bomb, lambda bomb: {"a": torch.ones(1), "b": bomb}], ids=["bare", "hidden"]
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, suffix: str, wrap: Callable[[Bomb], object], zipped: bool
) -> None:
    witness, file = tmp_path / "it-ran", tmp_path / f"x{suffix}"
    torch.save(wrap(Bomb(witness)), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpoint, match="would run code") as caught:
        read_pickled(file)
    assert "safetensors" in caught.value.hint
    assert not witness.exists()


def test_plain_pickles_and_renamed_ones_do_not_run_either(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "it-ran"
    (tmp_path / "x.bin").write_bytes(pickle.dumps(Bomb(witness), protocol=2))
    with pytest.raises(UnsafeCheckpoint):
        read_pickled(tmp_path / "x.bin")
    disguised = folder / "transformer" / WEIGHTS
    torch.save({"proj.bias": Bomb(witness)}, disguised)
    with pytest.raises(UnsafeCheckpoint):
        Archive([disguised])
    assert not witness.exists()


@pytest.mark.feature("C019")
def test_a_text_encoder_with_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    witness, part = tmp_path / "it-ran", folder / "text_encoder"
    (part / "model.safetensors").unlink()
    torch.save({"a": Bomb(witness)}, part / "pytorch_model.bin")
    with pytest.raises(UnsafeCheckpoint, match="would run code"):
        load(variant(), weights=folder).prepare()
    assert not witness.exists()


@pytest.mark.parametrize("spoil", ["module", "template", "damaged"])
def test_a_tokenizer_runs_nothing(folder: Path, tmp_path: Path, spoil: str) -> None:
    witness, part = tmp_path / "it-ran", folder / "tokenizer"
    config = json.loads((part / "tokenizer_config.json").read_text())
    if spoil == "module":  # what `trust_remote_code` would import
        (part / "evil.py").write_text(f"open({str(witness)!r}, 'w')")
        config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    elif spoil == "template":
        opened = "messages.__class__.__init__.__globals__"
        (part / "chat_template.jinja").write_text(f"{{{{ {opened}['__builtins__']['open']({str(witness)!r}, 'w') }}}}")
    else:
        (part / "tokenizer.json").write_text("{")
    (part / "tokenizer_config.json").write_text(json.dumps(config))
    pipe = load(variant(), weights=folder)
    if spoil == "module":
        pipe.prepare()
    else:
        with pytest.raises(CheckpointError) as caught:
            pipe(prompt="a", size=(16, 16), frames=1, steps=1)
        assert str(part) in caught.value.message
    assert not witness.exists()


@pytest.mark.parametrize("value", [{}, [], {"a": 3}, {"state_dict": {"a": "text"}}, {3: torch.ones(1)}, torch.ones(2)])
def test_a_pickle_that_holds_something_else_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "x.bin")
    with pytest.raises(CheckpointMismatch):
        read_pickled(tmp_path / "x.bin")


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 0.5, -1])
def test_a_truncated_pickle_is_refused(tmp_path: Path, keep: float) -> None:
    file = tmp_path / "x.bin"
    torch.save(MMDiT(**TRANSFORMER_CONFIG).state_dict(), file)
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(UnsafeCheckpoint):
        read_pickled(file)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("../../outside.txt", "x")
    with pytest.raises(UnsafeCheckpoint):
        read_pickled(tmp_path / "x.bin")
    assert not (tmp_path.parent.parent / "outside.txt").exists()


@pytest.mark.parametrize(
    "name", ["../vae/x.bin", "/etc/passwd", "a/b.bin", "..", ".", "", "x.safetensors", "model.bin/../../x.bin"]
)
def test_an_index_of_pickles_cannot_point_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UnsafeCheckpoint, match="names the file"):
        weight_files(tmp_path)


@pytest.mark.parametrize("document", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "{", "\x00"])
def test_an_index_that_is_none_is_refused(tmp_path: Path, document: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(document)
    with pytest.raises(CheckpointError):
        weight_files(tmp_path)


def test_links_inside_the_folder_and_into_the_hub_s_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    part = folder / "transformer"
    (part / WEIGHTS).rename(part / "real.bin")
    (part / WEIGHTS).symlink_to("real.bin")
    assert weight_files(part) == (part / WEIGHTS,)
    snapshot, blobs = tmp_path / "models--x--y" / "snapshots" / "abc" / "vae", tmp_path / "models--x--y" / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (folder / "vae" / WEIGHTS).rename(blobs / "0123")
    (snapshot / WEIGHTS).symlink_to(os.path.relpath(blobs / "0123", snapshot))
    assert weight_files(snapshot) == (snapshot / WEIGHTS,)
    (tmp_path / "mine.safetensors").symlink_to(blobs / "0123")
    assert component_files(tmp_path / "mine.safetensors", "vae") == ((tmp_path / "mine.safetensors",), None)


def test_half_a_download_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.incomplete").write_bytes(b"\0" * 10)
    with pytest.raises(CheckpointNotFound, match="half a download") as caught:
        weight_files(tmp_path)
    assert "models pull" in caught.value.hint


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_raises_anything_else(folder: Path, seed: int) -> None:
    file = folder / "transformer" / WEIGHTS
    data = bytearray(file.read_bytes())
    generator = torch.Generator().manual_seed(seed)
    reach = 4000 if seed % 2 else len(data)
    for at in torch.randint(0, reach, (1 + seed,), generator=generator).tolist():
        data[at] = int(torch.randint(0, 256, (1,), generator=generator))
    file.write_bytes(bytes(data))
    model = denoiser()
    try:
        load_into(model, [file])
    except EasyAnimateError:
        assert all(parameter.is_meta for parameter in model.parameters())
    else:
        assert not any(parameter.is_meta for parameter in model.parameters())


def test_the_interpreter_survives_a_file_that_shrinks_its_header(tmp_path: Path) -> None:
    """In a process of its own: a reader that trusts lengths would end it."""
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1000)}, file)
    header, data = header_of(file)
    header["a"]["data_offsets"][1] = 10**15
    header["a"]["shape"] = [10**15 // 4]
    rewrite(file, header, data)
    code = (
        "import sys; from pathlib import Path\n"
        "from easyanimate_core.checkpoints.archive import Archive\n"
        "from easyanimate_core.errors import UnsafeCheckpoint\n"
        "try: Archive([Path(sys.argv[1])])\n"
        "except UnsafeCheckpoint: sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(file)], check=False).returncode == 7
