"""How long people wait before anything happens: `python benchmarks/startup.py [RUNS] [--json FILE]`.

Cases take turns, so that a slow minute slows all of them. Two medians: wall time, which is what people wait, and the
processor's own time, which other programs on the machine do not lengthen much.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("easyanimate"))
PROMPT = "a red circle moving right on a blue background"

CASES: dict[str, tuple[int | None, tuple[str, ...]]] = {
    "python -c pass": (None, (sys.executable, "-c", "pass")),
    "import easyanimate_core": (100, (sys.executable, "-c", "import easyanimate_core")),
    "easyanimate --help": (500, (COMMAND, "--help")),
    "easyanimate generate --help": (None, (COMMAND, "generate", "--help")),
    "easyanimate plugins list": (None, (COMMAND, "plugins", "list")),
    "first frame: generate, nano, one picture": (None, (COMMAND, "generate", PROMPT, "--frames", "1", "-o", "1.png")),
    "first clip: generate, nano, 17 frames": (None, (COMMAND, "generate", PROMPT, "-o", "17.mp4")),
}
"""What is run: its budget in milliseconds (above a bare interpreter, for the import), and the command."""


def milliseconds(command: Sequence[str]) -> tuple[float, float]:
    """Wall and processor time of one run, in an empty folder, with settings of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "EASYANIMATE_HOME": folder}
        used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True)
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * took, 1000 * (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)


def measured(runs: int) -> list[dict[str, Any]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for index in range(runs + 1):
        for name, (_, command) in CASES.items():
            took = milliseconds(command)
            if index:  # the first run writes bytecode
                times[name].append(took)
    found = []
    for name, (budget, _) in CASES.items():
        wall, busy = zip(*times[name], strict=True)
        medians = {"wall_ms": round(statistics.median(wall)), "processor_ms": round(statistics.median(busy))}
        found.append({"case": name, **medians, "lowest_wall_ms": round(min(wall)), "budget_ms": budget})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the result there, too")
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "benchmark": "startup",
        "device": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')} CPU",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "threads": os.environ.get("OMP_NUM_THREADS", "as torch decides"),
        "load": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("easyanimate-core", "torch")}},
        "runs": arguments.runs,
        "cases": measured(arguments.runs),
    }
    print(f"{document['device']}, Python {platform.python_version()}, {arguments.runs} runs each, milliseconds\n")
    print("| | wall, median | lowest | processor, median | budget |\n|---|---|---|---|---|")
    for case in document["cases"]:
        columns = (case[name] for name in ("wall_ms", "lowest_wall_ms", "processor_ms", "budget_ms"))
        print(f"| `{case['case']}` |", " | ".join("–" if value is None else str(value) for value in columns), "|")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
