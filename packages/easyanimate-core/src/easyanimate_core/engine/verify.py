"""Is a file what its manifest says, and is what it was made of still here? Loads no torch for models on this disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from easyanimate_core.engine.digests import sha256_of
from easyanimate_core.engine.manifest import FileDigest, Manifest, read_manifest
from easyanimate_core.engine.outputs import sidecar_of
from easyanimate_core.engine.sources import input_files, versions_here, weight_files
from easyanimate_core.errors import EasyAnimateError, InvalidRequest, UnreadableMedia
from easyanimate_core.presets import find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from easyanimate_core.engine.store import JobStore

__all__ = ["Finding", "check_sources", "request_of", "verify"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        what: `pictures`, `sidecar`, `weights`, `inputs` or `versions`.
        state: `ok`; `changed` against the manifest; `missing` on this machine.
        said: what was found, in a few words.
    """

    what: str
    state: Literal["ok", "changed", "missing"]
    said: str = ""


def verify(path: Path, store: JobStore) -> tuple[Finding, ...]:
    """Check a video or picture against its manifest.

    Only a finding about `pictures` or `sidecar` says something about the file; the others say whether this machine
    could make it again.

    Args:
        path: the file.
        store: remembers digests of weights.

    Raises:
        UnreadableMedia: it is missing or damaged, or has no manifest.
        InvalidOptions: its manifest is not valid.
    """
    sidecar = sidecar_of(path)
    manifest = _embedded(path, sidecar)
    return (
        _pictures(path, manifest),
        *_sidecar(sidecar, manifest),
        *check_sources(manifest, store),
        _versions(manifest),
    )


def check_sources(manifest: Manifest, store: JobStore) -> tuple[Finding, ...]:
    """Whether weights and inputs are here, and still those of the manifest.

    Raises:
        InvalidRequest: this version cannot read the manifest's request.
    """
    request = request_of(manifest)
    inputs = _compared("inputs", manifest.inputs, dict(input_files(request)), store) if manifest.inputs else None
    folder = _checkpoint(request)
    if folder is None:
        weights = Finding("weights", "missing", f"the weights of '{manifest.model.preset}' are not on this machine")
    else:
        here = weight_files(folder)
        weights = _compared("weights", manifest.model.weights, here, store)
    return (weights,) if inputs is None else (weights, inputs)


def request_of(manifest: Manifest) -> GenerationRequest:
    """The request of a manifest.

    Raises:
        InvalidRequest: this version, with what is installed, cannot read it.
    """
    return parse(GenerationRequest, manifest.request, InvalidRequest, of="the manifest's request")


def _embedded(path: Path, sidecar: Path) -> Manifest:
    """The manifest in a file; that beside it when the file has none."""
    try:
        return read_manifest(path)
    except UnreadableMedia:
        if not (path.is_file() and sidecar.is_file()):
            raise
        return read_manifest(sidecar)


def _pictures(path: Path, manifest: Manifest) -> Finding:
    from easyanimate_core.media.encode import explained
    from easyanimate_core.media.seal import stored_digest

    if manifest.digests is None:
        return Finding("pictures", "missing", "kept latents have no pictures yet")
    with explained(path):
        same = stored_digest(path) == manifest.digests.stored_sha256
    return Finding("pictures", "ok") if same else Finding("pictures", "changed", "not those that were written")


def _sidecar(sidecar: Path, manifest: Manifest) -> tuple[Finding, ...]:
    if not sidecar.is_file():
        return ()
    try:
        same = read_manifest(sidecar) == manifest
    except EasyAnimateError:
        same = False
    return (
        Finding("sidecar", "ok") if same else Finding("sidecar", "changed", f"'{sidecar.name}' says something else"),
    )


def _versions(manifest: Manifest) -> Finding:
    here = versions_here()
    other = [f"{name} {here.get(name, 'not here')}, was {then}" for name, then in manifest.versions.items()
             if here.get(name) != then]  # fmt: skip
    return Finding("versions", "changed", "; ".join(other)) if other else Finding("versions", "ok")


def _compared(
    what: Literal["weights", "inputs"], recorded: Iterable[FileDigest], here: Mapping[str, Path], store: JobStore
) -> Finding:
    """Files of the manifest against those of this machine."""
    known = {file.path: file.sha256 for file in recorded}
    missing = sorted(known.keys() - here.keys())
    changed = sorted(name for name in known.keys() & here.keys() if sha256_of(here[name], store) != known[name])
    if missing:
        return Finding(what, "missing", _few(missing))
    if changed:
        return Finding(what, "changed", _few(changed))
    return Finding(what, "ok", f"{len(known)} files")


def _checkpoint(request: GenerationRequest) -> Path | None:
    """The folder of a request's weights, if it is on this machine."""
    if request.weights is None:
        bundled = find_preset(request.model).bundled_path()
        if bundled is not None:
            return bundled
    elif (folder := Path(request.weights).expanduser()).is_dir():
        return folder
    from easyanimate_core.pipeline.assemble import locate  # knows where downloads are; costs torch

    try:
        return locate(find_preset(request.model), request.weights)
    except EasyAnimateError:
        return None


def _few(names: list[str], limit: int = 3) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
