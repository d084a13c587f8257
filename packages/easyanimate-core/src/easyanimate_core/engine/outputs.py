"""Where a run's files go: one name, numbered names, and the JSON sidecar beside each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyanimate_core.media.paths import check_writable, claim_partial, next_numbered, publish
from easyanimate_core.presets import find_preset

if TYPE_CHECKING:
    from easyanimate_core.request import GenerationRequest

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
    def of(
        cls, output: str | None, *, count: int, frames: int, overwrite: bool = False, base: Path | None = None
    ) -> Destination:
        """Read `--output`: a file, a folder (existing, or with `/` at its end), or nothing for `outputs/`.

        Args:
            output: as the user wrote it.
            count: videos of the run.
            frames: frames of each.
            overwrite: existing files may be replaced.
            base: where a relative path begins; the current folder by default.
        """
        base = base or Path()
        picture = Path("any.png" if frames == 1 else "any.mp4")
        if output is None or output.endswith(("/", "\\")) or (base / output).is_dir():
            return cls(base / (output or "outputs"), picture, count, frames, overwrite)
        return cls(None, base / output, count, frames, overwrite)

    @classmethod
    def for_request(
        cls, request: GenerationRequest, output: str | None, *, overwrite: bool = False, base: Path | None = None
    ) -> Destination:
        """Where the videos of a completed request go; see `of`.

        Raises:
            InvalidRequest: the model cannot make that many frames.
        """
        preset = find_preset(request.model)
        asked = request.frames or preset.defaults.frames
        # Segments of a long video are fitted one by one.
        frames = asked if request.segment_frames is not None else preset.limits.fit_frames(asked)
        return cls.of(output, count=request.batch, frames=frames, overwrite=overwrite, base=base)

    def check(self) -> None:
        """Find out before the work whether the files can be written.

        Raises:
            MediaError: they cannot; see `check_writable`.
        """
        for path in self.places() if self.folder is None else self.places()[:1]:
            check_writable(path, self.overwrite, frames=self.frames)

    def places(self) -> tuple[Path, ...]:
        """The path of every video of the run.

        Numbered paths are drawn now, after the highest number in the folder; somebody else may take one before it
        is written.
        """
        if self.folder is not None:
            first = next_numbered(self.folder, self.path.suffix)
            return tuple(first.with_stem(f"{int(first.stem) + index:08d}") for index in range(self.count))
        if self.count == 1:
            return (self.path,)
        return tuple(self.path.with_stem(f"{self.path.stem}-{index + 1}") for index in range(self.count))

    @property
    def home(self) -> Path:
        """The folder that all files go to."""
        return self.path.parent if self.folder is None else self.folder


def sidecar_of(path: Path) -> Path:
    """`demo.mp4` → `demo.mp4.json`: beside the video, and never in the place of a job file `demo.json`."""
    return path.with_name(f"{path.name}.json")


def write_json(path: Path, document: Mapping[str, Any], *, tag: str = "") -> None:
    """Write a JSON file in one step, replacing an older one.

    Args:
        path: where.
        document: what.
        tag: a word in the name of the unfinished file; see `media.paths.partials`.

    Raises:
        MediaError: the folder cannot be written to.
    """
    partial = claim_partial(path, tag)
    try:
        partial.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        publish(partial, path, overwrite=True)
    finally:
        partial.unlink(missing_ok=True)
