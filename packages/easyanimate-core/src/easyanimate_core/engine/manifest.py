"""The manifest: what a file was made of, by what and where, so that it can be checked and made again.

One JSON document, embedded in the file, printed by `--json` and written beside it as `FILE.json`. Readers ignore
fields that they do not know; `manifest` counts up when the meaning of a field changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from easyanimate_core.errors import UnreadableMedia
from easyanimate_core.schema import parse

__all__ = [
    "MANIFEST_VERSION",
    "Digests",
    "FileDigest",
    "Manifest",
    "ModelUsed",
    "Picture",
    "Ran",
    "Sample",
    "read_manifest",
]

MANIFEST_VERSION: Final = 1
"""The version that this SDK writes, and the newest that it reads."""

_KEY: Final = "easyanimate"


class _Facts(BaseModel):
    """Base of all parts: read-only, and open to fields of later versions."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class FileDigest(_Facts):
    """A file that had a part in it."""

    path: str
    """Weights: relative to the checkpoint's folder; inputs: as the request names them."""

    bytes: int
    """Its size."""

    sha256: str
    """SHA-256 of its content, in hexadecimal."""


class Sample(_Facts):
    """Which video of the batch this is."""

    index: int
    """From 0."""

    seed: int
    """Where its noise comes from."""


class Picture(_Facts):
    """What the file shows."""

    frames: int
    """Length in frames."""

    height: int
    """Height in pixels, before a container pads it to even numbers."""

    width: int
    """Width in pixels, before a container pads it to even numbers."""

    fps: float
    """Frames per second."""


class Digests(_Facts):
    """What the pictures were, and what the file holds of them."""

    frames_sha256: str
    """SHA-256 of the frames before they were encoded: RGB, uint8, `(F, H, W, 3)`. A replay makes the same."""

    stored_sha256: str
    """SHA-256 of the encoded pictures (packets of an mp4, RGB pixels of a gif or png), whatever text is beside them."""


class ModelUsed(_Facts):
    """The model, and its weights."""

    preset: str
    """Name of the preset."""

    generation: str
    """Family of the architecture."""

    components: dict[str, Any]
    """Registered names: text encoders, denoiser, VAE."""

    weights: tuple[FileDigest, ...] = ()
    """All files of the checkpoint."""


class Ran(_Facts):
    """What really ran, after every `auto` was decided."""

    device: str
    """For example `cpu` or `cuda:0`."""

    device_name: str
    """What the maker calls it."""

    dtype: str
    """Number format of the loop."""

    threads: int
    """Threads of the CPU; sums may depend on them."""

    attention: str
    """Backend that computed the denoiser's attention, after `auto` was decided; `own` where it has no other."""

    offload: str | dict[str, Any]
    """Where weights were while they were not used: a name, or `name` and all options, budget and source for example."""

    storage: str | dict[str, Any]
    """Type in which weights were kept, in the same way."""

    placement: dict[str, Any] = Field(default_factory=dict)
    """What followed from that: `tiled` (frames were decoded in tiles), `apart` (both halves of guidance ran one after
    the other), `staying` (by component, how many of its blocks stayed on the device while it ran, and how many it
    has). Empty in manifests of earlier versions."""

    stages: tuple[str, ...]
    """The plan, in order."""


class Manifest(_Facts):
    """All that is known about one file."""

    manifest: Literal[1] = 1
    """Version of this document."""

    job: str
    """The run that made it; files of one run share it."""

    request: dict[str, Any]
    """The complete request. A manifest is therefore a job file: `easyanimate generate FILE.json` runs it."""

    sample: Sample | None = None
    """Which video of the request this is; `None` in kept latents, which hold all of them."""

    seeds: tuple[int, ...]
    """One per video of the request."""

    video: Picture
    """What the file shows."""

    digests: Digests | None = None
    """By which the pictures are known again; `None` in kept latents."""

    model: ModelUsed
    """Which weights."""

    inputs: tuple[FileDigest, ...] = ()
    """Files that the request names: pictures, videos, adapters."""

    ran: Ran
    """What really ran."""

    determinism: Literal["exact", "seeded"]
    """`exact`: the same versions on the same kind of processor make the same bits. `seeded`: the same noise, but
    kernels of the device may add in another order."""

    versions: dict[str, str]
    """Of the SDK, of the libraries that compute, of Python, and the platform."""

    seconds: dict[str, float] = Field(default_factory=dict)
    """Wall time by stage, until the file was complete, and in `total`."""

    notes: dict[str, Any] = Field(default_factory=dict)
    """What stages noted."""

    def as_json(self) -> dict[str, Any]:
        """The document."""
        return self.model_dump(mode="json")

    def as_text(self) -> str:
        """The document in one line, as it is embedded."""
        return json.dumps(self.as_json(), ensure_ascii=False)


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of a video, a picture, kept latents, or a sidecar.

    Raises:
        UnreadableMedia: the file is missing or damaged, or has no manifest.
        InvalidOptions: it has one that is not valid, or of a newer version.
    """
    path = Path(path)
    document = _document(path)
    if document is None:
        raise UnreadableMedia(
            f"'{path}' has no manifest",
            "It was made with --no-manifest, by another program, or has been re-encoded. Is there a FILE.json?",
        )
    return parse(Manifest, document, of=f"the manifest of '{path}'")


def _document(path: Path) -> Any:
    """The JSON document of a file; `None` when it has none."""
    if not path.is_file():
        raise UnreadableMedia(f"'{path}' does not exist", "Give a file that this SDK wrote.")
    try:
        match path.suffix.lower():
            case ".json":
                found = json.loads(path.read_text(encoding="utf-8"))
            case ".safetensors":
                from easyanimate_core.checkpoints.header import read_header

                notes = json.loads(read_header(path).metadata.get("notes", "{}"))
                found = notes.get("manifest")
            case _:
                from easyanimate_core.media.read import read_metadata

                found = json.loads(read_metadata(path).get(_KEY, "null"))
    except ValueError as error:
        raise UnreadableMedia(f"the manifest of '{path}' is not JSON: {error}", "It may be cut off.") from error
    return found if isinstance(found, dict) and "manifest" in found else None
