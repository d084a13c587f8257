"""Whether a folder is the checkpoint of a preset: its parts, its kind of model, its input channels. Reads no tensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from easyanimate_core.checkpoints.archive import PICKLED, Archive
from easyanimate_core.checkpoints.easyanimate import holds_motion
from easyanimate_core.checkpoints.releases import RELEASES, describe_config, family_of, texts_of
from easyanimate_core.checkpoints.source import component_folder, parts, read_json, weight_files
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound
from easyanimate_core.presets import Preset, all_presets

__all__ = ["check_belongs", "check_complete", "check_motion", "parts_of"]

_FAMILIES: Final = frozenset(release.anatomy.family for release in RELEASES)
_OURS: Final = "Choose the model that belongs to this checkpoint: easyanimate presets list."


def parts_of(preset: Preset) -> tuple[str, ...]:
    """The folders that a preset's checkpoint has: `transformer`, `vae`, `scheduler`, then a text encoder and a
    tokenizer for each that it names (`text_encoder_2`, `tokenizer_2`…), and `image_encoder` where it names one."""
    suffixes = [f"_{i + 1}" if i else "" for i in range(len(preset.components.text_encoders))]
    text = [f"{part}{suffix}" for suffix in suffixes for part in ("text_encoder", "tokenizer")]
    return ("transformer", "vae", "scheduler", *text, *(["image_encoder"] if preset.components.image_encoder else []))


def check_belongs(preset: Preset, folder: Path) -> None:
    """Prove by `transformer/config.json` that a checkpoint is of this preset's kind.

    What is not there, or not ours, is for others to refuse.

    Raises:
        CheckpointMismatch: it is another kind of denoiser, or has other input channels; the hint names the models
            that have them.
    """
    path = parts(folder).get("transformer", folder) / "config.json"
    if not path.is_file():
        return
    config = read_json(path)
    wrong = _wrong(preset, config)
    if wrong:
        raise CheckpointMismatch(f"'{path}' {wrong}", describe_config(config) or _OURS)


def _wrong(preset: Preset, config: dict[str, Any]) -> str:
    """What speaks against it; empty when nothing does."""
    family, wanted = family_of(config), preset.components.denoiser
    if family is not None and wanted in _FAMILIES and family != wanted:
        return f"is that of a denoiser '{family}', the model '{preset.name}' has a '{wanted}'"
    channels = config.get("in_channels")
    if preset.in_channels is not None and channels is not None and channels != preset.in_channels:
        return f"says {channels} input channels, the model '{preset.name}' has {preset.in_channels}"
    texts, own = texts_of(config), len(preset.components.text_encoders)
    if family == wanted and texts not in (None, own):
        return f"is for {texts} text encoder(s), the model '{preset.name}' has {own}"
    return ""


def check_complete(preset: Preset, folder: Path) -> None:
    """Prove that a checkpoint's folder has every part of this preset, and every part its files.

    Raises:
        CheckpointNotFound: something is missing; the message lists all of it.
        UnsafeCheckpoint: the folder shares parts with one that is not beside it.
    """
    names = parts_of(preset)
    places = component_folder(folder, *names)
    missing = [lack for name, place in zip(names, places, strict=True) for lack in _lacks(name, place)]
    if missing:
        raise CheckpointNotFound(
            f"the checkpoint '{folder}' has no {', '.join(missing)}",
            f"A folder of {preset.generation.upper()} holds {', '.join(f'{name}/' for name in names)}, each with its "
            "config and weights. Was the download complete?",
        )


def _lacks(name: str, place: Path) -> Iterator[str]:
    """What a part's folder should have and has not."""
    if name.startswith("tokenizer"):
        if not any(place.iterdir()):
            yield f"files in {name}/"
        return
    config = "scheduler_config.json" if name == "scheduler" else "config.json"
    if not (place / config).is_file():
        yield f"{name}/{config}"


def check_motion(preset: Preset, folder: Path) -> None:
    """Prove that an image model's folder has the motion module that this preset needs, or say where to get it.

    Raises:
        CheckpointNotFound: it has none. (Where the two were released apart, a folder that was trained whole has it.)
    """
    extra = next((extra for extra in preset.extras if extra.kind == "motion-module"), None)
    place = parts(folder).get("transformer")
    if extra is None or place is None:
        return
    files = weight_files(place)
    if any(file.suffix in PICKLED for file in files):
        return  # would have to be read whole; loading says it
    with Archive(files, config={}, role="denoiser") as archive:
        if holds_motion(archive.header):
            return
    still = [p.name for p in all_presets() if (p.task, p.generation) == ("text-to-image", preset.generation)]
    raise CheckpointNotFound(
        f"'{place}' is an image model, and '{preset.name}' also needs its motion module '{extra.name}'",
        f"Give it: --motion-path FILE, from {extra.url or extra.huggingface}."
        + (f" For pictures alone: --model {still[0]}." if still else ""),
    )
