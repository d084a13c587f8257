"""Give a virtual environment a torch before anything else asks for one.

Run by the Makefile with the environment's own Python; standard library only.

Left to itself, pip takes the newest torch with several gigabytes of CUDA. So torch comes first, once:

1. A torch that is already there is kept: your own, seen through `make VENV_ARGS=--system-site-packages`.
2. `TORCH="torch==2.11.0 --index-url …"` is handed to pip as it is.
3. Else the release of `constraints.txt`: on Linux without an NVIDIA GPU its CPU build, from your own
   index or wheel folder if they have it, else from PyTorch's; elsewhere what pip's index offers.

Writes the constraints for everything that follows to the path given: those of `constraints.txt`, with
torch (and a triton that came with it) pinned to what is installed.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TOO_OLD = (2, 6)
"""The packages declare torch >= 2.6."""


def installed(distribution: str) -> str | None:
    """Version of a distribution that this Python can import, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def has_nvidia_gpu() -> bool:
    """Whether the driver lists a GPU."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return False
    listed = subprocess.run([smi, "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU" in listed.stdout


def pip(*arguments: str, heard: bool) -> bool:
    """Run pip, with its output or without; whether it succeeded."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=not heard, check=False).returncode == 0


def attempts(pinned: str) -> list[list[str]]:
    """What to hand to pip, in order, until one succeeds."""
    asked = os.environ.get("TORCH", "").strip()
    if asked:
        return [shlex.split(asked)]
    if platform.system() != "Linux" or has_nvidia_gpu():
        return [[pinned]]
    cpu = f"{pinned}+cpu"
    return [[cpu], [cpu, "--extra-index-url", CPU_INDEX]]


def install(pinned: str) -> str:
    """Install torch unless it is there; returns its version."""
    found = installed("torch")
    if found is not None:
        print(f"torch {found} is already there: kept")
        return found
    tries = attempts(pinned)
    print(f"installing {tries[0][0]}", flush=True)
    # Only the last try's complaints are of interest.
    if not any(pip(*arguments, heard=arguments is tries[-1]) for arguments in tries):
        sys.exit(
            f"torch did not install ({shlex.join(tries[-1])}).\n"
            f'Choose a build for this machine: make TORCH="{pinned} --index-url URL", or TORCH=path/to/torch.whl;\n'
            "or use the torch of your Python: make VENV_ARGS=--system-site-packages.\n"
            "More: docs/how-to/use-your-own-torch.md"
        )
    # A fresh interpreter sees the new distribution; this one has cached its folders.
    code = "from importlib.metadata import version; print(version('torch'))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def constraints(lines: list[str], torch_version: str) -> list[str]:
    """The lines with torch pinned to what is installed, and triton too if it came with torch."""
    kept = [line for line in lines if not re.match(r"(torch|triton)\b", line)]
    triton_version = installed("triton")
    triton = [line for line in lines if line.startswith("triton")]
    return [*kept, f"torch=={torch_version}", *([f"triton=={triton_version}"] if triton_version else triton)]


def main(source: Path, destination: Path) -> None:
    """Install torch and write the constraints for the rest."""
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pinned = next(line for line in lines if line.startswith("torch=="))
    torch_version = install(pinned)
    release = tuple(int(part) for part in re.findall(r"\d+", torch_version)[:2])
    if release < TOO_OLD:
        sys.exit(f"torch {torch_version} is too old: 2.6 or newer is needed. Upgrade it, or leave VENV_ARGS unset.")
    destination.write_text("\n".join(constraints(lines, torch_version)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
