"""ModelScope's hub over plain HTTP, in the cache that its own client uses."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urlencode

from easyanimate_core.errors import CheckpointNotFound, UnsafeCheckpoint
from easyanimate_core.events import CancelToken

__all__ = ["cache_folder", "cached", "fetch", "listing"]

_PIECE: Final = 1 << 20
_TIMEOUT: Final = 30.0  # seconds without a byte


def cache_folder(repo: str) -> Path:
    """Where ModelScope's client keeps a repository; a dot of its name is written as three underscores."""
    home = os.environ.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope" / "hub"
    owner, _, name = repo.partition("/")
    return Path(home).expanduser() / "models" / owner / name.replace(".", "___")


def cached(repo: str) -> Path | None:
    """The folder of a repository that has been downloaded, by us or by ModelScope's own client."""
    folder = cache_folder(repo)
    for place in (folder, folder.with_name(repo.partition("/")[2])):
        if place.is_dir() and any(place.iterdir()):
            return place
    return None


def listing(repo: str, revision: str | None = None) -> list[tuple[str, int, Path, bool, str]]:
    """Name, size, place on this machine, whether it is there, and SHA-256 of each file.

    Raises:
        CheckpointNotFound: there is no such repository, or the hub does not answer.
        UnsafeCheckpoint: a name leads out of the folder.
    """
    query = urlencode({"Revision": revision or "master", "Recursive": "true"})
    url = f"{_endpoint()}/api/v1/models/{quote(repo)}/repo/files?{query}"
    try:
        with _open(url) as answer:
            document: Any = json.load(answer)
        entries = document["Data"]["Files"]
        found = [
            (str(e["Path"]), int(e["Size"]), str(e.get("Sha256") or "")) for e in entries if e.get("Type") != "tree"
        ]
    except (urllib.error.URLError, HTTPException, OSError, ValueError, KeyError, TypeError) as error:
        raise _unreachable(repo, error) from error
    folder = cache_folder(repo)
    places = {name: _inside(folder, name) for name, _, _ in found}
    return [(name, size, places[name], _whole(places[name], size), digest) for name, size, digest in found]


def fetch(
    repo: str,
    name: str,
    path: Path,
    size: int,
    sha256: str,
    revision: str | None,
    seen: Callable[[int], None],
    cancel: CancelToken,
) -> None:
    """Download one file, going on where an earlier attempt stopped; it gets its name when size and digest are right.

    Raises:
        CheckpointNotFound: the hub does not answer, or sends something else.
        Cancelled: someone asked to stop; what has arrived is kept.
    """
    part = path.with_name(f"{path.name}.incomplete")
    path.parent.mkdir(parents=True, exist_ok=True)
    start = part.stat().st_size if part.is_file() else 0
    if start > size:
        part.unlink()
        start = 0
    query = urlencode({"Revision": revision or "master", "FilePath": name})
    request = urllib.request.Request(f"{_endpoint()}/api/v1/models/{quote(repo)}/repo?{query}")
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        if start < size or not size:
            with _open(request) as answer:
                # A server that knows no ranges sends the whole file again.
                _save(answer, part, start if answer.status == 206 else 0, seen, cancel)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise _unreachable(repo, error) from error
    _accept(part, path, size, sha256, f"'{name}' of 'modelscope:{repo}'")


def _save(answer: Any, part: Path, start: int, seen: Callable[[int], None], cancel: CancelToken) -> None:
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        done = start
        while piece := answer.read(_PIECE):
            cancel.check()
            file.write(piece)
            done += len(piece)
            seen(done)


def _accept(part: Path, path: Path, size: int, sha256: str, what: str) -> None:
    if not part.is_file():
        part.touch()  # an empty file: nothing was sent
    if (got := part.stat().st_size) < size:
        raise CheckpointNotFound(f"{what} stopped at {got} of {size} bytes", "Run it again; it goes on there.")
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    if got != size or (sha256 and digest.hexdigest() != sha256):
        part.unlink()
        raise CheckpointNotFound(f"{what} did not arrive as the hub describes it", "Run it again.")
    part.replace(path)


def _endpoint() -> str:
    domain = os.environ.get("MODELSCOPE_DOMAIN", "www.modelscope.cn")
    return os.environ.get("MODELSCOPE_ENDPOINT", f"https://{domain}").rstrip("/")


def _open(request: str | urllib.request.Request) -> Any:
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _inside(folder: Path, name: str) -> Path:
    """The place of a file; the hub's listing is not trusted to stay inside."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or ".." in parts:
        raise UnsafeCheckpoint(f"the hub names the file '{name}'", "It would be written out of the model's folder.")
    return folder.joinpath(*parts)


def _whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _unreachable(repo: str, error: Exception) -> CheckpointNotFound:
    if isinstance(error, urllib.error.HTTPError) and error.code == 404:
        return CheckpointNotFound(f"there is no '{repo}' on ModelScope", "Check the name on modelscope.cn.")
    first = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
    return CheckpointNotFound(
        f"'modelscope:{repo}' cannot be downloaded: {first}",
        "Is the network there? What has arrived is kept; run it again.",
    )
