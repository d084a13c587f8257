"""Where an output may go: checked before any work, numbered without overwriting, published at once."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from easyanimate_core.errors import MediaError

__all__ = ["SUFFIXES", "check_writable", "claim_partial", "next_numbered", "partials", "publish"]

SUFFIXES = (".mp4", ".gif", ".png")
"""What can be written; the suffix of a path decides."""

_NUMBERED = re.compile(r"\d{8}")


def check_writable(path: str | Path, overwrite: bool = False, *, frames: int | None = None) -> Path:
    """Find out now whether a video can be written at `path` later, and leave no trace.

    Args:
        path: the file to be written; missing parent folders are fine.
        overwrite: an existing file may be replaced.
        frames: how many frames there will be, when known; a `.png` holds one.

    Raises:
        MediaError: unknown suffix, existing file, a folder or a folder that cannot be written to, or
            several frames for a `.png`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        what = (
            f"cannot write '{path.suffix}' files" if path.suffix else f"'{path.name}' has no suffix to say its format"
        )
        raise MediaError(what, f"Use one of {', '.join(SUFFIXES)}.")
    if path.suffix.lower() == ".png" and frames is not None and frames != 1:
        raise MediaError(f"'{path.name}' can hold 1 frame, not {frames}", "Use .mp4 or .gif, or ask for 1 frame.")
    if path.is_dir():
        raise MediaError(f"'{path}' is a folder", "Name a file in it.")
    if path.exists() and not overwrite:
        raise _exists(path)
    ancestor = path.absolute().parent
    while not os.path.lexists(ancestor):
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise MediaError(f"cannot write '{path}': '{ancestor}' is not a folder", "Choose another place.")
    try:
        # Permission bits do not tell about read-only file systems or /proc; a nameless file does.
        with tempfile.TemporaryFile(dir=ancestor):
            pass
    except OSError as error:
        raise MediaError(
            f"cannot write '{path}': the folder '{ancestor}' refuses files ({error.strerror})", "Choose another place."
        ) from error
    return path


def next_numbered(folder: str | Path, suffix: str = ".mp4") -> Path:
    """The first free 8-digit name after the highest number used in `folder`: `00000001.mp4`, `00000002.mp4`…

    Files of every suffix count, so that a video, its sidecar and a picture never share a number. Numbers
    of deleted files in between are not used again. The folder need not exist.
    """
    folder = Path(folder)
    names = [entry.name.split(".")[0] for entry in folder.iterdir()] if folder.is_dir() else []
    used = (int(name) for name in names if _NUMBERED.fullmatch(name))
    return folder / f"{max(used, default=0) + 1:08d}{suffix}"


def claim_partial(path: Path, tag: str = "") -> Path:
    """Make the parent folders of `path` and an empty hidden file beside it, to be published later.

    Args:
        path: what it will become.
        tag: a word by which `partials` finds it after a crash.

    Raises:
        MediaError: the folder cannot be made or written to.
    """
    partial = path.with_name(f".{path.stem}.{tag or os.getpid()}.{os.urandom(4).hex()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its files are private (0600), and the finished video should follow the umask.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise MediaError(f"cannot write '{path}': {error.strerror}", "Choose another place.") from error
    return partial


def partials(folder: Path, tag: str) -> list[Path]:
    """Unfinished files with this tag in a folder: what a killed run left."""
    return sorted(folder.glob(f".*.{tag}.*.partial*")) if folder.is_dir() else []


def publish(partial: Path, path: Path, *, overwrite: bool = False) -> None:
    """Give a finished file its name in one step; `partial` is gone afterwards.

    Raises:
        MediaError: `path` exists by now and may not be overwritten, or the folder refuses; `partial` stays.
    """
    try:
        if overwrite:
            partial.replace(path)
            return
        try:
            os.link(partial, path)  # unlike rename, fails when the name was taken meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError(17, "File exists") from None
            partial.replace(path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise MediaError(f"cannot write '{path}': {error.strerror}", "Choose another place.") from error
    partial.unlink(missing_ok=True)


def _exists(path: Path) -> MediaError:
    return MediaError(f"'{path}' exists already", "Pass --overwrite (overwrite=True) or choose another name.")
