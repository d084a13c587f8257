"""Where the SDK keeps what outlives a run: jobs and digests."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["data_folder"]


def data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """`EASYANIMATE_HOME`, else the folder that the platform has for data of a user's programs. It may not exist.

    Linux: `$XDG_DATA_HOME/easyanimate`, by default `~/.local/share/easyanimate`; macOS:
    `~/Library/Application Support/easyanimate`; Windows: `%LOCALAPPDATA%\\easyanimate`.
    """
    if said := environ.get("EASYANIMATE_HOME"):
        return Path(said).expanduser()
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "easyanimate"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "easyanimate"
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "easyanimate"
