"""Layouts: recognised by content, mapped both ways, converted bit for bit, and loaded by those they are for."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from easyanimate_core.checkpoints.archive import Archive
from easyanimate_core.checkpoints.convert import convert_checkpoint, convert_file
from easyanimate_core.checkpoints.detect import recognise
from easyanimate_core.checkpoints.diffusers import from_diffusers_name, to_diffusers, to_diffusers_config
from easyanimate_core.checkpoints.keymap import KeyMap, Merge, Pad, Rename, Split
from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.releases import RELEASES, Anatomy, anatomy, describe_nearest
from easyanimate_core.checkpoints.source import read_json, weight_files
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.errors import (
    AmbiguousCheckpoint,
    CheckpointError,
    CheckpointMismatch,
    ConfigError,
    InvalidRequest,
    UnknownFormat,
)
from easyanimate_core.pipeline import load
from easyanimate_core.pipeline.components import build_denoiser, build_vae
from easyanimate_core.plugins import Host, hookimpl, using
from easyanimate_core.presets import Preset, all_presets, find_preset
from easyanimate_core.registry import Registrar
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG
from golden import load_case
from recorder import SMALL

F32 = torch.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def ported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_checkpoint(folder, tmp_path_factory.mktemp("ported") / "diffusers", "diffusers").path


def tensors_of(path: Path) -> dict[str, Tensor]:
    return {name: tensor for file in weight_files(path) for name, tensor in load_file(file).items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


# --- key maps -------------------------------------------------------------------------------------


def maps() -> Iterator[tuple[KeyMap, dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    yield KeyMap(), {"a": random(2)}
    yield KeyMap((Rename("a", "b"), Rename("b", "a"))), {"a": random(2), "b": random(3)}
    yield KeyMap((Split("qkv", ("q", "k", "v"), (4, 2, 2)),)), {"qkv": random(8, 3), "x": random(1)}
    yield KeyMap((Merge(("q", "k"), "qk", (2, 5), dim=1),)), {"q": random(3, 2), "k": random(3, 5)}
    yield KeyMap((Pad("a", "b", 3, 7, dim=1),)), {"a": random(2, 3, 2, 2)}


@pytest.mark.parametrize(("keymap", "stored"), list(maps()))
def test_a_map_and_its_inverse_give_the_same_tensors(keymap: KeyMap, stored: dict[str, Tensor]) -> None:
    made = keymap.apply(stored)
    assert keymap.prove({n: tuple(t.shape) for n, t in stored.items()}) == {n: tuple(t.shape) for n, t in made.items()}
    assert same(keymap.inverse().apply(made), stored)
    assert keymap.inverse().inverse() == keymap


@pytest.mark.parametrize(
    ("keymap", "shapes", "said"),
    [
        (KeyMap((Rename("a", "b"),)), {"a": (1,), "b": (1,)}, "'b' is made twice"),
        (KeyMap((Rename("a", "b"), Rename("a", "c"))), {"a": (1,)}, "'a' is used twice"),
        (KeyMap((Rename("x", "b"),)), {"a": (1,)}, "'x', which the key map needs, is not stored"),
        (KeyMap((Split("a", ("b", "c"), (1, 1)),)), {"a": (3,)}, r"cannot be cut into \[1, 1\]"),
        (KeyMap((Merge(("a", "b"), "c", (1, 1)),)), {"a": (1, 2), "b": (1, 3)}, "cannot be joined"),
        (KeyMap((Merge(("a", "b"), "c", (1, 1)),)), {"a": (2, 2), "b": (1, 2)}, "cannot be joined"),
        (KeyMap((Pad("a", "a", 3, 4),)), {"a": (2, 2)}, "does not have the length 3"),
    ],
)
def test_a_map_that_is_not_bijective_is_refused(keymap: KeyMap, shapes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointMismatch, match=said):
        keymap.prove(shapes)


def test_what_loses_something_has_no_way_back() -> None:
    with pytest.raises(CheckpointMismatch, match="drops 'a'"):
        KeyMap(dropped=frozenset({"a"})).inverse()
    with pytest.raises(CheckpointMismatch, match="would lose weights"):
        KeyMap((Pad("a", "a", 3, 2),)).apply({"a": torch.ones(1, 3)})


@pytest.mark.feature("C067")
def test_the_port_renames_the_text_branch_and_nothing_else() -> None:
    with torch.device("meta"):
        names = list(MMDiT(**TRANSFORMER_CONFIG).state_dict())
    keymap = to_diffusers(names)
    assert len(keymap.rules) == 12  # one block with own text weights
    assert {rule.sources[0].split(".")[2] for rule in keymap.rules} == {"attn2"}
    assert all(from_diffusers_name(rule.targets[0]) == rule.sources[0] for rule in keymap.rules)


# --- detection ------------------------------------------------------------------------------------


@pytest.mark.feature("C067", "C058")
def test_each_layout_is_recognised(folder: Path, ported: Path, tmp_path: Path) -> None:
    trained = {f"denoiser.{name}": tensor for name, tensor in tensors_of(folder / "transformer").items()}
    save_file(trained, tmp_path / "weights.safetensors")
    for place, expected in ((folder, "easyanimate"), (ported, "diffusers")):
        for part in ("transformer", "vae"):
            with Archive(weight_files(place / part), config=read_json(place / part / "config.json")) as archive:
                assert recognise(archive.header).name == expected
    with Archive([tmp_path / "weights.safetensors"], role="denoiser") as archive:
        assert recognise(archive.header).name == "training"


def test_what_nobody_claims_is_unknown(tmp_path: Path) -> None:
    save_file({"down.0.weight": torch.ones(1)}, tmp_path / "x.safetensors")
    with Archive([tmp_path / "x.safetensors"]) as archive, pytest.raises(UnknownFormat) as caught:
        recognise(archive.header)
    assert "'down.0.weight'" in caught.value.message
    assert "easyanimate, diffusers, training" in caught.value.hint


class Greedy:
    def match(self, header: object) -> float:
        return 1.0

    def keymap(self, header: object) -> KeyMap:
        return KeyMap()


class GreedyPlugin:
    @hookimpl
    def easyanimate_register(self, registrar: Registrar) -> None:
        registrar.add("formats", "greedy", f"{__name__}:Greedy", summary="claims everything")


def test_a_tie_is_an_error(folder: Path) -> None:
    with (
        using(Host(discover=False, plugins={"easyanimate-greedy": GreedyPlugin()})),
        Archive(weight_files(folder / "vae")) as archive,
        pytest.raises(AmbiguousCheckpoint, match="'easyanimate' and 'greedy'"),
    ):
        recognise(archive.header)


def test_a_mixture_of_two_layouts_is_an_error(folder: Path, ported: Path, tmp_path: Path) -> None:
    save_file({**tensors_of(folder / "transformer"), **tensors_of(ported / "transformer")}, tmp_path / "x.safetensors")
    with Archive([tmp_path / "x.safetensors"]) as archive, pytest.raises(AmbiguousCheckpoint):
        recognise(archive.header)


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.feature("C067", "C019")
def test_the_port_s_layout_loads_as_the_same_model(folder: Path, ported: Path) -> None:
    for build, name, part in ((build_denoiser, "mmdit", "transformer"), (build_vae, "magvit", "vae")):
        ours, theirs = build(name, folder / part, dtype=F32), build(name, ported / part, dtype=F32)
        assert same(ours.state_dict(), theirs.state_dict())


@pytest.mark.feature("C019")
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "pytorch_model.bin"])
def test_pickled_tensors_load_as_the_same_model(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_bytes((folder / "transformer" / "config.json").read_bytes())
    torch.save(tensors_of(folder / "transformer"), tmp_path / name)
    loaded = build_denoiser("mmdit", tmp_path, dtype=F32)
    assert same(dict(loaded.state_dict()), tensors_of(folder / "transformer"))


@pytest.mark.feature("C019")
def test_sharded_pickles_and_wrapped_ones_load_too(folder: Path, tmp_path: Path) -> None:
    tensors = tensors_of(folder / "transformer")
    names = sorted(tensors)
    files = {name: f"pytorch_model-{1 + i % 2}.bin" for i, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({"state_dict": {n: tensors[n] for n in names if files[n] == file}}, tmp_path / file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    (tmp_path / "config.json").write_bytes((folder / "transformer" / "config.json").read_bytes())
    assert same(dict(build_denoiser("mmdit", tmp_path, dtype=F32).state_dict()), tensors)


@pytest.mark.feature("C018")
@pytest.mark.parametrize("name", ["v5_1_t2v_to_inp", "v5_1_inp_to_t2v"])
def test_inlets_grow_as_recorded_when_asked(tmp_path: Path, name: str) -> None:
    call = load_case("loading_adapt").call(name)
    source = load_case(Path(call.kwargs["checkpoint"]).name)
    save_file(source.state_dict(), tmp_path / "x.safetensors")
    unused = {"_class_name", "add_ref_latent_in_control_model"}
    config = {key: value for key, value in source.config.items() if key not in unused}
    with torch.device("meta"):
        model = MMDiT(**{**config, **call.kwargs["override"]})
    with pytest.raises(CheckpointMismatch, match=r"proj\.weight"):
        load_into(model, [tmp_path / "x.safetensors"])
    assert all(parameter.is_meta for parameter in model.parameters())
    report = load_into(model, [tmp_path / "x.safetensors"], grow_inlets=True)
    assert report.grown == ("proj.weight",)
    assert report.loaded == call.kwargs["total"]
    state = model.state_dict()
    for weight, wanted in call.expected.items():
        assert torch.equal(state[weight], wanted.float())


def test_growing_is_for_inlets_alone(tmp_path: Path) -> None:
    class Other(nn.Module):
        inlet_weight = "a.weight"

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

    save_file({**Other().state_dict(), "b.weight": torch.ones(2, 4)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"b\.weight \[2, 4\] instead of \[2, 3\]"):
        load_into(Other(), [tmp_path / "x.safetensors"], grow_inlets=True)


# --- other weights for one component --------------------------------------------------------------


def variant() -> Preset:
    nano = find_preset("nano")
    return nano.model_copy(update={"latent_channels": 16})


@pytest.mark.feature("C020")
def test_other_weights_replace_one_component_alone(folder: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", seed=1)
    file = other / "transformer" / "diffusion_pytorch_model.safetensors"
    for given in (other, other / "transformer", file):
        toolbox = load(variant(), weights=folder, transformer_path=given).prepare()
        assert same(dict(toolbox.denoiser.state_dict()), tensors_of(other / "transformer"))
        assert same(dict(toolbox.vae.state_dict()), tensors_of(folder / "vae"))
    toolbox = load(variant(), weights=folder, vae_path=other).prepare()
    assert same(dict(toolbox.vae.state_dict()), tensors_of(other / "vae"))
    assert same(dict(toolbox.denoiser.state_dict()), tensors_of(folder / "transformer"))


@pytest.mark.feature("C020")
def test_a_training_checkpoint_can_be_tried_at_once(folder: Path, tmp_path: Path) -> None:
    trained = {f"denoiser.{n}": t + 1 for n, t in tensors_of(folder / "transformer").items()}
    save_file({**trained, "vae.x": torch.ones(1)}, tmp_path / "weights.safetensors")
    toolbox = load(variant(), weights=folder, transformer_path=tmp_path / "weights.safetensors").prepare()
    assert same({f"denoiser.{n}": t for n, t in toolbox.denoiser.state_dict().items()}, trained)


@pytest.mark.feature("C020")
def test_other_weights_are_strict(folder: Path, tmp_path: Path) -> None:
    wide = write_checkpoint(tmp_path / "wide", in_channels=33)
    file = wide / "transformer" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(CheckpointMismatch, match=r"proj\.weight \[32, 33, 2, 2\] instead of \[32, 16, 2, 2\]"):
        load(variant(), weights=folder, transformer_path=file).prepare()
    with pytest.raises(CheckpointError, match="no file or folder"):
        load(variant(), weights=folder, vae_path=tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UnknownFormat, match="no file of weights"):
        load(variant(), weights=folder, vae_path=tmp_path / "x.txt")


def test_a_request_tells_which_weights_made_the_video(folder: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", seed=1)
    pipe = load(variant(), weights=folder, transformer_path=other)
    video = pipe(**SMALL)
    assert video.notes["request"]["transformer_path"] == str(other)
    assert video.notes["request"]["vae_path"] is None
    assert pipe.complete(pipe.complete(**SMALL)).transformer_path == str(other)
    with pytest.raises(InvalidRequest, match="this pipeline was loaded with"):
        pipe(**SMALL, vae_path=str(other))


# --- conversion -----------------------------------------------------------------------------------


@pytest.mark.feature("C067")
@pytest.mark.parametrize("shard_bytes", [2**30, 20_000])
def test_there_and_back_is_bit_equal(folder: Path, tmp_path: Path, shard_bytes: int) -> None:
    there = convert_checkpoint(folder, tmp_path / "there", "diffusers", shard_bytes=shard_bytes)
    back = convert_checkpoint(there.path, tmp_path / "back", "easyanimate", shard_bytes=shard_bytes)
    assert (there.found, back.found) == (
        {"transformer": "easyanimate", "vae": "easyanimate"},
        {"transformer": "diffusers", "vae": "diffusers"},
    )
    assert there.renamed == back.renamed == 12
    for part in ("transformer", "vae"):
        assert same(tensors_of(folder / part), tensors_of(back.path / part))
        old, new = read_json(folder / part / "config.json"), read_json(back.path / part / "config.json")
        assert {key: new.get(key) for key in old} == {**old, **({"mmdit_layers": 1} if part == "transformer" else {})}
    for part in ("text_encoder", "tokenizer", "scheduler"):
        for file in (folder / part).iterdir():
            assert (back.path / part / file.name).read_bytes() == file.read_bytes()


@pytest.mark.feature("C067")
def test_one_file_converts_alone(folder: Path, ported: Path, tmp_path: Path) -> None:
    source = weight_files(folder / "transformer")[0]
    convert_file(source, tmp_path / "there.safetensors", "diffusers")
    assert same(load_file(tmp_path / "there.safetensors"), tensors_of(ported / "transformer"))
    convert_file(tmp_path / "there.safetensors", tmp_path / "back.safetensors", "easyanimate")
    assert same(load_file(tmp_path / "back.safetensors"), load_file(source))


@pytest.mark.feature("C067")
def test_the_installed_diffusers_loads_what_we_convert(ported: Path, caplog: pytest.LogCaptureFixture) -> None:
    import diffusers

    with caplog.at_level(logging.WARNING):
        transformer, told = diffusers.EasyAnimateTransformer3DModel.from_pretrained(
            ported / "transformer", output_loading_info=True
        )
        vae, told_vae = diffusers.AutoencoderKLMagvit.from_pretrained(ported / "vae", output_loading_info=True)
    for info in (told, told_vae):
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert not info["mismatched_keys"]
    assert not [record for record in caplog.records if "config attributes" in record.getMessage()]
    assert same(dict(transformer.state_dict()), tensors_of(ported / "transformer"))
    assert same(dict(vae.state_dict()), tensors_of(ported / "vae"))


@pytest.mark.feature("C067")
def test_the_installed_pipeline_runs_on_what_we_convert(ported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    # The tiny text encoder has only the layers that we use; the library fills in the rest at random, and says so.
    pipe = diffusers.EasyAnimatePipeline.from_pretrained(ported)
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        "a red circle", negative_prompt="", num_frames=5, height=32, width=32, num_inference_steps=2, output_type="pt"
    )
    assert made.frames.shape == (1, 5, 3, 32, 32)
    assert made.frames.isfinite().all()


@pytest.mark.feature("C067")
@pytest.mark.parametrize(("channels", "kind"), [(16, ""), (33, "Inpaint"), (48, "Control")])
def test_the_index_names_the_pipeline_of_the_task(tmp_path: Path, channels: int, kind: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", in_channels=channels)
    path = convert_checkpoint(folder, tmp_path / "ported", "diffusers").path
    assert read_json(path / "model_index.json")["_class_name"] == f"EasyAnimate{kind}Pipeline"


def test_a_target_that_exists_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        convert_checkpoint(folder, tmp_path / "there", "diffusers")
    with pytest.raises(ConfigError, match="no model layout is called 'onnx'"):
        convert_checkpoint(folder, tmp_path / "new", "onnx")
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


def test_a_conversion_that_fails_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    broken = convert_checkpoint(folder, tmp_path / "copy", "easyanimate").path
    (broken / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError):
        convert_checkpoint(broken, tmp_path / "new", "diffusers")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


# --- the nearest release --------------------------------------------------------------------------


@pytest.mark.feature("C070")
def test_every_released_preset_is_known_by_its_shapes() -> None:
    presets = {preset.name: preset for preset in all_presets() if preset.huggingface and preset.name != "v1-image"}
    known = {release.preset: release for release in RELEASES}
    assert set(known) == set(presets)
    for name, preset in presets.items():
        assert known[name].anatomy.in_channels == preset.in_channels
        assert known[name].anatomy.family == preset.components.denoiser
        assert preset.huggingface.endswith(f"/{known[name].folder}")


def shapes_of(found: Anatomy) -> dict[str, tuple[int, ...]]:
    blocks = "blocks" if found.family == "hunyuan" else "transformer_blocks"
    names = {f"{blocks}.{i}.attn1.to_q.weight": (1,) for i in range(found.layers)}
    patches, text = (found.width, found.in_channels, 2, 2), (1, found.text_width)
    if found.family == "hunyuan":
        return {**names, "pos_embed.proj.weight": patches, "text_embedder.linear_1.weight": text}
    if found.family == "pixart":
        motion = {
            f"{blocks}.0.attn_temporal.temporal_transformer.proj_in.weight": (1,),
            "adaln_single.linear.weight": (1,),
        }
        skips = {f"long_connect_fc.{i}.weight": (1,) for i in range(found.skips)}
        return {
            **names, **motion, **skips, "pos_embed.proj.weight": patches, "caption_projection.linear_1.weight": text
        }  # fmt: skip
    own = {f"{blocks}.{i}.attn2.to_q.weight": (1,) for i in range(found.mmdit_layers)}
    return {**names, **own, "proj.weight": patches, "text_proj.1.weight": text}


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.folder)
def test_a_release_is_named(release: Any) -> None:
    assert anatomy(shapes_of(release.anatomy)) == release.anatomy
    said = describe_nearest(shapes_of(release.anatomy))
    assert said.startswith("These are the weights of ")
    assert release.folder in said
    assert f"'{release.preset}'" in said


def test_what_is_near_a_release_is_compared_with_it() -> None:
    said = describe_nearest(shapes_of(Anatomy(3072, 36, 18, 34, 3584)))
    assert "The nearest release is EasyAnimateV5.1-7b-zh-InP" in said
    assert "34 input channels" in said
    assert describe_nearest(shapes_of(Anatomy(32, 2, 1, 16, 32))).startswith("No release has these shapes")
    assert describe_nearest({"a": (1,)}) == ""


def test_a_mismatch_names_the_model_that_the_file_is_of(tmp_path: Path) -> None:
    config = {**TRANSFORMER_CONFIG, "num_attention_heads": 2, "attention_head_dim": 16}
    save_file(MMDiT(**config).state_dict(), tmp_path / "x.safetensors")
    with torch.device("meta"):
        other = MMDiT(**{**config, "num_layers": 3})
    with pytest.raises(CheckpointMismatch) as caught:
        load_into(other, [tmp_path / "x.safetensors"])
    assert "No release has these shapes (width 32, 2 layers (1 with own text weights)" in caught.value.hint


def test_the_port_s_configs_say_only_what_the_port_knows() -> None:
    kept = to_diffusers_config({**TRANSFORMER_CONFIG, "mmdit_layers": 10_000}, vae=False)
    assert kept["mmdit_layers"] == TRANSFORMER_CONFIG["num_layers"]
    assert "enable_clip_in_inpaint" not in kept
