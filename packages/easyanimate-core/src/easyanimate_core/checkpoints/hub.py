"""Checkpoints on Hugging Face and ModelScope: found in the standard caches, downloaded only when asked.

Nothing here touches the network but `remote_files` and `pull`; with `HF_HUB_OFFLINE=1` they do not either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

from easyanimate_core.checkpoints import modelscope
from easyanimate_core.errors import CheckpointNotFound
from easyanimate_core.events import SILENT, CancelToken, EventBus, StageProgress

__all__ = ["RemoteFile", "Repo", "cached", "file_of", "is_offline", "pull", "remote_files", "repo_of"]

_ID: Final = re.compile(r"(?:(?P<hub>hf|huggingface|ms|modelscope):)?(?P<id>[\w.-]+/[\w.-]+)$")
_FILE: Final = re.compile(r"(?P<repo>(?:\w+:)?[\w.-]+/[\w.-]+)(?::(?P<file>[^:]+))?$")
_HUBS: Final = {"hf": "huggingface", "ms": "modelscope"}
_NAMED: Final = 8  # files in a message
# Everything that a model is made of; not the pictures and videos that its page shows.
_LEFT_OUT: Final = (
    "*.mp4",
    "*.gif",
    "*.png",
    "*.jpg",
    "*.jpeg",
    "*.webp",
    "*.md",
    ".git*",
    "*.onnx",
    "*.msgpack",
    "*.h5",
)


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository on a hub.

    Attributes:
        hub: `"huggingface"` or `"modelscope"`.
        id: `"owner/name"`.
    """

    hub: str
    id: str

    def __str__(self) -> str:
        return self.id if self.hub == "huggingface" else f"modelscope:{self.id}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        name: path inside the repository.
        bytes: its size.
        path: where it is, or will be, on this machine.
        present: whether it is there.
        sha256: its digest, where the hub says it.
    """

    name: str
    bytes: int
    path: Path
    present: bool
    sha256: str = ""


def repo_of(weights: str) -> Repo | None:
    """What `owner/name`, `hf:owner/name` or `modelscope:owner/name` means; `None` for anything else."""
    found = _ID.match(weights)
    if found is None or found["id"].startswith("."):
        return None
    hub = found["hub"] or "hf"
    return Repo(_HUBS.get(hub, hub), found["id"])


def file_of(text: str) -> tuple[Repo, str] | None:
    """What `owner/name:file` means, with a hub's prefix or without; the file is `""` when the text names none.

    `None` for anything else, a file that would lie outside its repository included.
    """
    found = _FILE.match(text)
    repo = repo_of(found["repo"]) if found is not None else None
    if found is None or repo is None:
        return None
    parts = PurePosixPath(found["file"] or "").parts
    return None if ".." in parts or "/" in parts or "\\" in text else (repo, "/".join(parts))


def cached(repo: Repo, revision: str | None = None) -> Path | None:
    """The folder of a repository that has been downloaded; `None` when it has not. Asks no network."""
    if repo.hub == "modelscope":
        return modelscope.cached(repo.id)
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE) / f"models--{repo.id.replace('/', '--')}"
    reference = home / "refs" / (revision or "main")
    commit = reference.read_text("utf-8").strip() if reference.is_file() else revision or ""
    snapshot = home / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def is_offline() -> bool:
    """Whether the user said that the network is not to be used (`HF_HUB_OFFLINE=1`)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def remote_files(repo: Repo, *, revision: str | None = None, only: str = "") -> tuple[RemoteFile, ...]:
    """What `pull` would leave on this machine; asks the hub.

    Raises:
        CheckpointNotFound: there is no such repository or file, it asks for consent, or the hub does not answer.
    """
    _check_online(repo)
    if repo.hub == "modelscope":
        listed = modelscope.listing(repo.id, revision)
        kept = tuple(RemoteFile(*entry) for entry in listed if not _left_out(entry[0]))
    else:
        kept = _asked(repo, lambda: _huggingface_files(repo, revision))
    if not kept:
        raise CheckpointNotFound(f"'{repo}' holds no files of a model", "Check the name on the hub's page.")
    if only and not (chosen := tuple(file for file in kept if file.name == only)):
        names = ", ".join(file.name for file in kept[:_NAMED])
        raise CheckpointNotFound(
            f"'{repo}' has no file '{only}'", f"It has: {names}{' …' if len(kept) > _NAMED else ''}."
        )
    return chosen if only else kept


def pull(
    repo: Repo,
    *,
    revision: str | None = None,
    only: str = "",
    events: EventBus = SILENT,
    cancel: CancelToken | None = None,
) -> Path:
    """Download a repository into the standard cache of its hub, and return its folder.

    What is there already is not downloaded again: a download that was stopped goes on where it stopped, at a file's
    beginning on Hugging Face, anywhere on ModelScope.

    Args:
        repo: what to download.
        revision: branch, tag or commit; the hub's default when left out.
        only: the one file that is wanted; everything when empty.
        events: hears `StageProgress("download", bytes, bytes in all)`.
        cancel: checked between files, and on ModelScope within.

    Raises:
        CheckpointNotFound: there is no such repository or file, it asks for consent, or the hub does not answer.
        Cancelled: someone asked to stop.
    """
    token = cancel or CancelToken()
    with events.span("download"):
        files = remote_files(repo, revision=revision, only=only)
        total = sum(file.bytes for file in files)
        before = 0
        for file in files:
            token.check()

            def seen(done: int, file: RemoteFile = file, before: int = before) -> None:
                events.emit(StageProgress("download", before + min(done, file.bytes), total, "bytes"))

            if not file.present:
                _fetch(repo, file, revision, seen, token)
            before += file.bytes
            seen(0, RemoteFile("", 0, file.path, True), before)
    return _root(files[0])


def _root(file: RemoteFile) -> Path:
    return file.path.parents[file.name.count("/")]


def _left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern) for pattern in _LEFT_OUT)


def _check_online(repo: Repo) -> None:
    if is_offline():
        raise CheckpointNotFound(
            f"'{repo}' would have to be asked for, but the network is switched off", "Unset HF_HUB_OFFLINE."
        )


def _huggingface_files(repo: Repo, revision: str | None) -> tuple[RemoteFile, ...]:
    from huggingface_hub import snapshot_download

    found: Any = snapshot_download(
        repo.id,
        revision=revision,
        ignore_patterns=list(_LEFT_OUT),
        endpoint=os.environ.get("HF_ENDPOINT"),
        dry_run=True,
        tqdm_class=_reporting(lambda _: None),
    )
    return tuple(
        RemoteFile(info.filename, info.file_size or 0, Path(info.local_path), info.is_cached) for info in found
    )


def _fetch(
    repo: Repo, file: RemoteFile, revision: str | None, seen: Callable[[int], None], cancel: CancelToken
) -> None:
    if repo.hub == "modelscope":
        modelscope.fetch(repo.id, file.name, file.path, file.bytes, file.sha256, revision, seen, cancel)
        return
    from huggingface_hub import hf_hub_download

    commit = _root(file).name
    endpoint = os.environ.get("HF_ENDPOINT")
    bar = _reporting(seen)
    _asked(repo, lambda: hf_hub_download(repo.id, file.name, revision=commit, endpoint=endpoint, tqdm_class=bar))


def _reporting(seen: Callable[[int], None]) -> type[Any]:
    """A progress bar that draws nothing and tells `seen` how many bytes there are."""
    from huggingface_hub.utils.tqdm import tqdm

    class Reporting(tqdm):
        def __init__(self, *args: Any, **more: Any) -> None:
            self._bytes = int(more.get("initial") or 0)
            super().__init__(*args, **{**more, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self._bytes += int(n or 0)
            seen(self._bytes)

    return Reporting


def _asked(repo: Repo, ask: Callable[[], Any]) -> Any:
    """What a call of the hub's client returns, with its errors as ours."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return ask()
    except GatedRepoError as error:
        raise CheckpointNotFound(
            f"'{repo}' asks for consent before it is downloaded",
            f"Agree on https://huggingface.co/{repo.id}, then: hf auth login.",
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointNotFound(
            f"there is no '{repo}' on Hugging Face", "Check the name. Private? hf auth login."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0][:150] if str(error).strip() else type(error).__name__
        raise CheckpointNotFound(
            f"'{repo}' cannot be downloaded: {first}", "Is the network there? What has arrived is kept; run it again."
        ) from error
