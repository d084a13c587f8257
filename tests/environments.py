"""Wheels of the packages, and clean environments to install them into. Offline: third-party code is borrowed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

__all__ = ["borrow_libraries", "build_wheel", "make_environment", "run"]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; it must succeed, whatever paths are set in the shell."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel of a distribution, made with the build tools of this environment."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def borrow_libraries(folder: Path) -> Path:
    """Fill a folder with links to everything that is installed here, but for our own distributions."""
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for item in Path(place).iterdir():
            ours = "easyanimate" in item.name.lower()
            if not ours and item.suffix != ".pth" and not (folder / item.name).exists():
                (folder / item.name).symlink_to(item)
    return folder


def make_environment(folder: Path, libraries: Path, *wheels: Path) -> Path:
    """The Python of a new environment with these wheels and, of our distributions, nothing else."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install"]
    run(*pip, "--no-deps", "--no-index", "--quiet", *wheels)
    return python
