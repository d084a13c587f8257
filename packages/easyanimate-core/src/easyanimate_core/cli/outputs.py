"""Where a run's files go: one name, numbered names, and the JSON sidecar beside each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyanimate_core.media.paths import check_writable, claim_partial, next_numbered, publish

__all__ = ["Destination", "sidecar_of", "write_json"]


@dataclass(frozen=True, slots=True)
class Destination:
    """The files of one run.

    Attributes:
        folder: where numbered files go; `None` when the user named the file.
        path: the named file; its suffix is used for numbered ones.
        count: videos of the run.
        frames: frames of each.
        overwrite: existing files may be replaced.
    """

    folder: Path | None
    path: Path
    count: int
    frames: int
    overwrite: bool = False

    @classmethod
    def of(cls, output: str | None, *, count: int, frames: int, overwrite: bool = False) -> Destination:
        """Read `--output`: a file, a folder (existing, or with `/` at its end), or nothing for `outputs/`."""
        picture = Path("any.png" if frames == 1 else "any.mp4")
        if output is None or output.endswith(("/", "\\")) or Path(output).is_dir():
            return cls(Path(output or "outputs"), picture, count, frames, overwrite)
        return cls(None, Path(output), count, frames, overwrite)

    def check(self) -> None:
        """Find out before the work whether the files can be written.

        Raises:
            MediaError: they cannot; see `check_writable`.
        """
        for index in range(self.count if self.folder is None else 1):
            check_writable(self.place(index), self.overwrite, frames=self.frames)

    def place(self, index: int) -> Path:
        """The path of video number `index`, counted from 0.

        Numbered paths are drawn now, after the highest number in the folder: ask right before writing.
        """
        if self.folder is not None:
            return next_numbered(self.folder, self.path.suffix)
        return self.path if self.count == 1 else self.path.with_name(f"{self.path.stem}-{index + 1}{self.path.suffix}")


def sidecar_of(path: Path) -> Path:
    """`demo.mp4` → `demo.mp4.json`: beside the video, and never in the place of a job file `demo.json`."""
    return path.with_name(f"{path.name}.json")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file in one step, replacing an older one.

    Raises:
        MediaError: the folder cannot be written to.
    """
    partial = claim_partial(path)
    try:
        partial.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        publish(partial, path, overwrite=True)
    finally:
        partial.unlink(missing_ok=True)
