"""Whether a checkpoint would load: every component against its module, every number finite. Keeps nothing in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from easyanimate_core.checkpoints.archive import Archive
from easyanimate_core.checkpoints.convert import COMPONENTS
from easyanimate_core.checkpoints.inspection import weight_folders
from easyanimate_core.checkpoints.load import prove_fit, read_finite
from easyanimate_core.checkpoints.source import component_files, component_folder, read_json, weight_files
from easyanimate_core.errors import CheckpointError, EasyAnimateError
from easyanimate_core.pipeline.belonging import parts_of
from easyanimate_core.pipeline.components import described
from easyanimate_core.plugins import active
from easyanimate_core.presets import Preset
from easyanimate_core.slots import DENOISERS, VAES

__all__ = ["Verdict", "verify"]

_SLOTS: Final[Any] = {"transformer": DENOISERS, "vae": VAES}
_WHOLE: Final = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one component.

    Attributes:
        name: its folder, or the file.
        said: what was proved, or what is wrong.
        hint: what to do about it.
        good: whether it would load.
    """

    name: str
    said: str
    hint: str = ""
    good: bool = True


def verify(path: Path, preset: Preset | None = None, *, motion_path: Path | None = None) -> Iterator[Verdict]:
    """One verdict per component of a folder or file, as each is done; reads every tensor once.

    Args:
        path: a checkpoint's folder, a component's folder, or a weight file.
        preset: the model that it should be; its denoiser's input channels are then checked as well.
        motion_path: the motion module that completes the denoiser, where that is an image model.
    """
    try:
        if path.is_dir() and not (path / "config.json").is_file():
            component_folder(path, *(_WHOLE if preset is None else parts_of(preset)))
        parts = [(path.name, path)] if path.is_file() else list(weight_folders(path))
    except CheckpointError as error:
        yield Verdict(path.name, error.message, error.hint, good=False)
        return
    for name, place in parts:
        try:
            yield Verdict(name, _proved(name, place, preset, motion_path))
        except EasyAnimateError as error:
            yield Verdict(name, error.message, error.hint, good=False)


def _proved(name: str, place: Path, preset: Preset | None, motion_path: Path | None) -> str:
    config_path = place / "config.json"
    config = read_json(config_path) if place.is_dir() else {}
    files = weight_files(place) if place.is_dir() else component_files(place, "")[0]
    if name == "transformer" and motion_path is not None:
        files += component_files(motion_path, name)[0]
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    with Archive(files, config=public, role=COMPONENTS.get(name, "")) as archive:
        said = f"{len(archive.header.tensors)} tensors, all finite"
        slot = _SLOTS.get(name)
        written_for = str(config.get("_class_name", ""))
        above: dict[str, Any] = {}
        if slot is not None and preset is not None:
            written_for, above = _said(preset, name)
        if slot is not None and written_for in active().registries[slot]:
            module, keymap, layout = described(slot, written_for, archive, above, config_path)
            if preset is not None and name == "transformer" and hasattr(module, "declare"):
                module.declare(preset.inlets)
            assert isinstance(module, nn.Module)
            prove_fit(module, archive, keymap)
            said += f", fit '{written_for}'" + (f", layout '{layout}'" if layout else "")
        for tensor in archive.header.tensors:
            read_finite(archive, tensor)
    return said


def _said(preset: Preset, name: str) -> tuple[str, dict[str, Any]]:
    """Which component a preset says that a folder holds, and its settings above the folder's config."""
    if name == "vae":
        return preset.components.vae, preset.settings_of("vae", half=False)
    return preset.components.denoiser, preset.settings_of("denoiser", half=False)
