"""The files of one run, written while frames pass: several writers, manifests, sidecars, and no trace of a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from easyanimate_core.engine.manifest import Manifest, read_manifest
from easyanimate_core.engine.outputs import Destination, sidecar_of, write_json
from easyanimate_core.errors import InvalidPlan
from easyanimate_core.events import EventBus
from easyanimate_core.media.paths import partials
from easyanimate_core.media.write import NOTES_KEY, VideoWriter, Written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Made", "OutputFiles"]

_LEDGER: Final = "outputs.json"

_Describe = Callable[[int, Written], Manifest]


@dataclass(frozen=True, slots=True)
class Made:
    """One finished file and its manifest; the manifest is `None` when a crash fell between the two."""

    path: Path
    manifest: Manifest | None


@dataclass(slots=True)
class OutputFiles:
    """Writes the samples of a batch side by side.

    A finished file gets its name only after a note about it is on disk: a run that is killed in between knows, when
    it goes on, what it has published already.

    Attributes:
        destination: where files go.
        folder: the job's own.
        tag: a word in the names of unfinished files.
        embed: put the manifest into the files.
        sidecar: put it beside them too.
        made: what is finished.
    """

    destination: Destination
    folder: Path
    tag: str
    events: EventBus
    embed: bool = True
    sidecar: bool = True
    made: list[Made] = field(default_factory=list)

    def clean(self) -> None:
        """Remove unfinished files that a killed run of this job left."""
        for path in partials(self.destination.home, self.tag):
            path.unlink(missing_ok=True)

    def published(self) -> dict[int, Path]:
        """Files that an earlier run of this job finished, by sample."""
        found = {}
        for index, noted in self._ledger().items():
            path = Path(noted["path"])
            # A published file is the unfinished one under another name: the same inode.
            if path.exists() and [path.stat().st_dev, path.stat().st_ino] == noted["inode"]:
                found[int(index)] = path
        return found

    def write(self, chunks: Iterator[Tensor], fps: float, describe: _Describe) -> None:
        """Write all samples.

        Args:
            chunks: runs of frames `(B, 3, F', H, W)` in 0…1, in order.
            fps: frames per second.
            describe: the manifest of a sample whose frames are all written.

        Raises:
            MediaError: a file cannot be written; then none of the unfinished ones stays.
            InvalidPlan: there are no frames, or not as many samples as files.
        """
        there = self.published()
        documents: dict[int, Manifest] = {}
        with ExitStack() as stack:
            writers = self._open(stack, fps, set(there), documents, describe)
            for chunk in chunks:
                if chunk.shape[0] != self.destination.count:
                    raise InvalidPlan(
                        f"the plan made {chunk.shape[0]} videos for {self.destination.count} files",
                        "A stage changed the batch; leave it as the request says.",
                    )
                for index, writer in writers.items():
                    writer.write(chunk[index].permute(1, 2, 3, 0))
            with self.events.span("save"):
                stack.close()
        self.finish({**there, **{index: writer.path for index, writer in writers.items()}}, documents)

    def finish(self, paths: Mapping[int, Path] | None = None, manifests: Mapping[int, Manifest] | None = None) -> None:
        """Write the sidecars of published files and list them in `made`.

        Args:
            paths: by sample; by default what an earlier run published.
            manifests: by sample; where one is missing, it is read from its file.
        """
        self.made.clear()
        for index, path in sorted((self.published() if paths is None else paths).items()):
            manifest = (manifests or {}).get(index)
            if manifest is None and self.embed:
                manifest = read_manifest(path)
            if self.sidecar and manifest is not None:
                write_json(sidecar_of(path), manifest.as_json(), tag=self.tag)
            self.made.append(Made(path, manifest))

    def _open(
        self, stack: ExitStack, fps: float, done: set[int], documents: dict[int, Manifest], describe: _Describe
    ) -> dict[int, VideoWriter]:
        writers = {}
        # In reverse, because the stack closes the last one first, and files should appear in order.
        for index, path in reversed(list(enumerate(self.destination.places()))):
            if index in done:
                continue
            writers[index] = stack.enter_context(
                VideoWriter(
                    path,
                    fps=fps,
                    metadata=self._describe(index, documents, describe),
                    overwrite=self.destination.overwrite,
                    numbered=self.destination.folder is not None,
                    tag=self.tag,
                    before_publish=self._note(index),
                )
            )
        return writers

    def _describe(
        self, index: int, documents: dict[int, Manifest], describe: _Describe
    ) -> Callable[[Written], Mapping[str, str]]:
        def metadata(written: Written) -> Mapping[str, str]:
            documents[index] = describe(index, written)
            return {NOTES_KEY: documents[index].as_text()} if self.embed else {}

        return metadata

    def _note(self, index: int) -> Callable[[Path, Path], None]:
        def before_publish(partial: Path, path: Path) -> None:
            status = partial.stat()
            noted = {"path": str(path.absolute()), "inode": [status.st_dev, status.st_ino]}
            write_json(self.folder / _LEDGER, {**self._ledger(), str(index): noted})

        return before_publish

    def _ledger(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / _LEDGER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found
