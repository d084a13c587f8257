"""From one layout to the other, bit for bit: names and configs change, tensors do not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from easyanimate_core.checkpoints.archive import Archive
from easyanimate_core.checkpoints.detect import recognise
from easyanimate_core.checkpoints.diffusers import to_diffusers, to_diffusers_config
from easyanimate_core.checkpoints.easyanimate import is_vae
from easyanimate_core.checkpoints.header import Header
from easyanimate_core.checkpoints.keymap import KeyMap, Rename
from easyanimate_core.checkpoints.save import write_json, write_tensors
from easyanimate_core.checkpoints.source import component_folder, parts, read_json, weight_files
from easyanimate_core.errors import CheckpointError, CheckpointMismatch, ConfigError

__all__ = ["COMPONENTS", "MODEL_LAYOUTS", "Converted", "convert_checkpoint", "convert_file"]

MODEL_LAYOUTS: Final = ("easyanimate", "diffusers")
"""Layouts that models are written in."""

COMPONENTS: Final[Mapping[str, str]] = MappingProxyType({"transformer": "denoiser", "vae": "vae"})
"""Folders whose layouts differ, and the role of each."""

_STEM: Final = "diffusion_pytorch_model"
_IMAGE_MODEL: Final = "adaln_single.linear.weight"
_MOTION: Final = ".attn_temporal."
_EARLIER: Final = re.compile(r"(pos_embed\.proj|adaln_single\.|transformer_blocks\.\d+\.scale_shift_table)")
_LIBRARIES: Final = MappingProxyType(
    {
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
        "text_encoder": ("transformers", "Qwen2VLForConditionalGeneration"),
        "tokenizer": ("transformers", "Qwen2Tokenizer"),
        "transformer": ("diffusers", "EasyAnimateTransformer3DModel"),
        "vae": ("diffusers", "AutoencoderKLMagvit"),
    }
)


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written.

    Attributes:
        path: folder or file.
        found: layout of each component before, by folder; of a file under its own name.
        tensors: how many were written.
        renamed: how many of them have another name now.
    """

    path: Path
    found: Mapping[str, str]
    tensors: int
    renamed: int


def convert_checkpoint(
    source: Path,
    target: Path,
    layout: str,
    *,
    shard_bytes: int = 5 * 2**30,
    done: Callable[[int, int], None] | None = None,
) -> Converted:
    """Write a whole checkpoint in another layout. The target appears whole or not at all.

    Components that both layouts share (text encoder, tokenizer, scheduler) are copied. Settings that diffusers'
    classes do not know are left out on the way there, and get V5.1's values on the way back.

    Args:
        source: folder with `transformer/`, `vae/` and so on, in any layout that is recognised.
        target: folder that does not exist yet.
        layout: `"easyanimate"` or `"diffusers"`.
        shard_bytes: no weight file becomes larger; memory holds one at a time.
        done: hears bytes written and bytes in all.

    Raises:
        ConfigError: there is no such layout, or not for this model, or the target exists.
        CheckpointError: the source cannot be read.
    """
    _check(layout, target)
    component_folder(source, *COMPONENTS)
    found = parts(source)
    if layout == "diffusers":
        _check_ported(found)
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        written = _Writer(layout, shard_bytes, done, sum(_size(found[name]) for name in COMPONENTS))
        for name, role in COMPONENTS.items():
            written.component(found[name], beside / name, role)
        for name, part in sorted(found.items()):
            if name not in COMPONENTS and not name.startswith("."):
                shutil.copytree(part, beside / name)
        if layout == "diffusers":
            write_json(beside / "model_index.json", _index(beside))
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Converted(target, written.found, written.tensors, written.renamed)


def convert_file(source: Path, target: Path, layout: str) -> Converted:
    """Write one component's weight file in another layout.

    Raises:
        ConfigError: there is no such layout, or not for this model, or the target exists.
        CheckpointError: the source cannot be read.
    """
    _check(layout, target)
    with Archive([source]) as archive:
        found = recognise(archive.header)
        maps = (found.keymap(), _last(archive.header, found.keymap(), layout))
        names = [name for name in archive.header.tensors if name not in maps[0].dropped]
        tensors = maps[1].apply(maps[0].apply({name: archive.read(name) for name in names}))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(target, tensors)
    return Converted(target, {source.name: found.name}, len(tensors), len(tensors.keys() - set(names)))


class _Writer:
    """Converts components one after the other and counts."""

    def __init__(self, layout: str, shard_bytes: int, done: Callable[[int, int], None] | None, total: int) -> None:
        self.layout, self.shard_bytes, self.report, self.total = layout, shard_bytes, done, total
        self.found: dict[str, str] = {}
        self.tensors = self.renamed = self.bytes = 0

    def component(self, source: Path, target: Path, role: str) -> None:
        """One component's weights and config."""
        config = read_json(source / "config.json")
        public = {key: value for key, value in config.items() if not key.startswith("_")}
        with Archive(weight_files(source), config=public, role=role) as archive:
            layout = recognise(archive.header)
            first = layout.keymap()
            last = _last(archive.header, first, self.layout)
            target.mkdir(parents=True)
            self._write(archive, target, (first, last))
        ours = layout.config()
        vae = role == "vae"
        if self.layout == "diffusers":
            ours = to_diffusers_config(ours, vae=vae)
        else:
            ours["_class_name"] = config.get("_class_name") or _LIBRARIES[source.name][1]
        write_json(target / "config.json", ours)
        self.found[source.name] = layout.name

    def _write(self, archive: Archive, folder: Path, maps: tuple[KeyMap, KeyMap]) -> None:
        """Tensors in files of bounded size; one file, or shards with an index."""
        first, last = maps
        stored = [name for name in archive.header.tensors if name not in first.dropped]
        first.prove({name: archive.header.tensors[name].shape for name in stored})
        shards = list(_shards(stored, archive.header, self.shard_bytes))
        weight_map: dict[str, str] = {}
        for index, names in enumerate(shards, 1):
            tensors = {name: archive.read(name) for name in names}
            made = last.apply(first.apply(tensors)) if len(shards) == 1 else _renamed(tensors, first, last)
            self.tensors += len(made)
            self.renamed += len(made.keys() - set(names))
            file = f"{_STEM}.safetensors" if len(shards) == 1 else f"{_STEM}-{index:05}-of-{len(shards):05}.safetensors"
            write_tensors(folder / file, made)
            weight_map |= dict.fromkeys(made, file)
            self.bytes += sum(archive.header.tensors[name].bytes for name in names)
            if self.report is not None:
                self.report(self.bytes, self.total)
        if len(shards) > 1:
            total = sum(archive.header.tensors[name].bytes for name in stored)
            document = {"metadata": {"total_size": total}, "weight_map": weight_map}
            write_json(folder / f"{_STEM}.safetensors.index.json", document)


def _check(layout: str, target: Path) -> None:
    if layout not in MODEL_LAYOUTS:
        raise ConfigError(f"no model layout is called '{layout}'", f"Choose one of: {', '.join(MODEL_LAYOUTS)}.")
    if target.exists():
        raise ConfigError(f"'{target}' exists already", "Choose another place, or remove it first.")


def _check_ported(found: Mapping[str, Path]) -> None:
    """Refuse a checkpoint that diffusers' pipelines cannot run, before anything is written.

    Raises:
        ConfigError: it has another denoiser than V5.1's, or several text encoders.
    """
    folder = found["transformer"]
    with Archive(weight_files(folder), role="denoiser") as archive:
        _last(archive.header, recognise(archive.header).keymap(), "diffusers")
    if windows := read_json(folder / "config.json").get("swa_layers"):
        raise ConfigError(
            f"'{folder}' has sliding windows ('swa_layers': {windows}), which diffusers' class does not know",
            "Choose 'easyanimate'.",
        )
    if "text_encoder_2" in found:
        raise ConfigError(
            f"'{folder.parent}' has two text encoders, and diffusers' pipelines take one",
            "Choose 'easyanimate', or convert the denoiser's file alone.",
        )


def _last(header: Header, first: KeyMap, layout: str) -> KeyMap:
    """From released names to the wanted layout's."""
    if layout == "easyanimate" or is_vae(header):
        return KeyMap()
    names = first.prove({name: info.shape for name, info in header.tensors.items() if name not in first.dropped})
    if _IMAGE_MODEL in names and not any(_MOTION in name for name in names):
        raise ConfigError(f"'{header.path}' is an image model (PixArt) and has diffusers' names already", "Copy it.")
    if any(_EARLIER.match(name) for name in names):
        raise ConfigError(
            f"'{header.path}' is a denoiser of V1 to V4, which diffusers has no class for", "Choose 'easyanimate'."
        )
    return to_diffusers(names)


def _renamed(tensors: Mapping[str, Any], first: KeyMap, last: KeyMap) -> dict[str, Any]:
    """A part of a component's tensors, by maps that only rename.

    Raises:
        CheckpointMismatch: a map cuts or joins tensors, which may lie in different parts.
    """
    moved = dict(tensors)
    for keymap in (first, last):
        moves = {rule.sources[0]: rule.targets[0] for rule in keymap.rules if isinstance(rule, Rename)}
        if len(moves) != len(keymap.rules):
            raise CheckpointMismatch(
                "a layout that cuts or joins tensors cannot be converted in shards", "Allow larger shards."
            )
        moved = {moves.get(name, name): tensor for name, tensor in moved.items()}
    return moved


def _shards(names: Iterable[str], header: Header, limit: int) -> Iterable[list[str]]:
    """Names in groups of at most `limit` bytes, each with at least one."""
    group: list[str] = []
    size = 0
    for name in names:
        if group and size + header.tensors[name].bytes > limit:
            yield group
            group, size = [], 0
        group.append(name)
        size += header.tensors[name].bytes
    if group:
        yield group


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in weight_files(folder))


def _index(folder: Path) -> dict[str, Any]:
    """`model_index.json`: the pipeline class that diffusers has for this model, and its components' classes."""
    extra = _extra_channels(folder)
    kind = {0: "EasyAnimatePipeline", 17: "EasyAnimateInpaintPipeline"}.get(extra, "EasyAnimateControlPipeline")
    present = {name: list(library) for name, library in _LIBRARIES.items() if (folder / name).is_dir()}
    return {"_class_name": kind, "_diffusers_version": "0.33.0", **present}


def _extra_channels(folder: Path) -> int:
    config = read_json(folder / "transformer" / "config.json")
    try:
        return int(config["in_channels"]) - int(config["out_channels"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"'{folder}/transformer/config.json' names no channels", "Fetch it again.") from None
