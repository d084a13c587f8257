"""How long people wait before anything happens: `python benchmarks/startup.py [RUNS]`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("easyanimate"))

CASES: tuple[tuple[str, int | None, tuple[str, ...]], ...] = (
    ("python -c pass", None, (sys.executable, "-c", "pass")),
    ("import easyanimate_core", 100, (sys.executable, "-c", "import easyanimate_core")),
    ("easyanimate --help", 500, (COMMAND, "--help")),
    ("easyanimate generate --help", None, (COMMAND, "generate", "--help")),
    ("easyanimate plugins list", None, (COMMAND, "plugins", "list")),
)
"""What is run, its budget in milliseconds (above a bare interpreter, for the import), and the command."""


def milliseconds(command: tuple[str, ...]) -> float:
    """Wall time of one run."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - began)


def main(runs: int = 10) -> None:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {runs} runs each, milliseconds\n")
    print("| | lowest | median | budget |\n|---|---|---|---|")
    for name, budget, command in CASES:
        milliseconds(command)  # the first run writes bytecode
        times = [milliseconds(command) for _ in range(runs)]
        print(f"| `{name}` | {min(times):.0f} | {statistics.median(times):.0f} | {budget or '–'} |")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
