"""Where a LoRA is: a path, or `owner/name[:file]` in the caches of downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from easyanimate_core.checkpoints.archive import PICKLED
from easyanimate_core.checkpoints.hub import cached, file_of
from easyanimate_core.errors import CheckpointNotFound

__all__ = ["SAVED_NAMES", "locate_lora"]

SAVED_NAMES: Final = tuple(
    f"{stem}{suffix}" for stem in ("adapter_model", "pytorch_lora_weights") for suffix in (".safetensors", ".bin")
)
"""What PEFT and diffusers call the file of weights in a folder that they save."""

_SPELLINGS: Final = "Give a file as PATH or PATH=WEIGHT, or one that was downloaded as owner/name:FILE."


def locate_lora(path: str | Path) -> Path:
    """The file or folder of a LoRA. Asks no network.

    Args:
        path: a file, or a folder that PEFT or diffusers saved; or `owner/name:file` of a repository that was pulled,
            with `modelscope:` in front for ModelScope. Without `:file`, the file that PEFT or diffusers would have
            saved there, else the only one.

    Raises:
        CheckpointNotFound: it is neither here nor in a cache, or the repository holds several files.
    """
    place = Path(path).expanduser()
    if place.exists():
        return place
    said = file_of(str(path))
    # `loras/style.safetensors` could be a repository, but nobody calls one so.
    if said is None or (not said[1] and place.suffix in PICKLED | {".safetensors"}):
        raise CheckpointNotFound(f"there is no LoRA '{path}'", _SPELLINGS)
    repo, name = said
    pull = f"Download it: easyanimate models pull {repo}{f':{name}' if name else ''}"
    folder = cached(repo)
    if folder is None:
        raise CheckpointNotFound(f"the LoRA '{path}' is neither a file here nor in the cache of downloads", pull)
    if name:
        if (folder / name).is_file():
            return folder / name
        raise CheckpointNotFound(f"the downloaded '{repo}' has no file '{name}'", pull)
    return _only(folder, str(path))


def _only(folder: Path, spelt: str) -> Path:
    if any((folder / name).is_file() for name in SAVED_NAMES):
        return folder  # as a folder, so that its configuration counts
    found = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.safetensors"))
    if len(found) == 1:
        return folder / found[0]
    raise CheckpointNotFound(
        f"'{spelt}' holds {len(found) or 'no'} files that may be the LoRA" + (f": {', '.join(found)}" if found else ""),
        f"Say which: {spelt}:{found[0]}" if found else "Is it the repository of a model?",
    )
