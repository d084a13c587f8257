"""Which placement the planner takes in each cell of the original's memory tables: `python benchmarks/memory_table.py`.

Predictions, from counts on the meta device; see docs/reference/plan.md. `M`, `Q` and `S` are the original's modes:
model offload, the same with float8, sequential offload. V3 had no float8; its low-memory mode was sequential offload.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from easyanimate_core.engine.planner import find_device, plan_run
from easyanimate_core.engine.planner.choose import Counted
from easyanimate_core.presets import find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.sizes import GIB

CELLS = {
    "v5.1": (("384x672", 25), ("384x672", 49), ("576x1008", 25), ("576x1008", 49), ("768x1344", 25), ("768x1344", 49)),
    "v3": (("384x672", 72), ("384x672", 144), ("576x1008", 72), ("576x1008", 144), ("720x1280", 72), ("720x1280", 144)),
}
ORIGINAL = {
    "v5.1-12b": {
        "8GB": "......",
        "12GB": "......",
        "16GB": "QSSS--",
        "24GB": "QQQQQ-",
        "40GB": "MMMMMM",
        "80GB": "MMMMMM",
    },
    "v5.1-7b": {
        "8GB": "......",
        "12GB": "......",
        "16GB": "QQSS--",
        "24GB": "MMMQQ-",
        "40GB": "MMMMMM",
        "80GB": "MMMMMM",
    },
    "v3-960": {
        "8GB": "......",
        "12GB": "SSSS--",
        "16GB": "MMSSS-",
        "24GB": "MMMMM-",
        "40GB": "MMMMMM",
        "80GB": "MMMMMM",
    },
}
MODES = {"M": "model_cpu_offload", "Q": "model_cpu_offload_and_qfloat8", "S": "sequential_cpu_offload"}


def cell(counted: Counted, memory: str, at: int, mode: str) -> dict[str, Any]:
    """What is taken in one cell, and whether the original's mode would fit as well."""
    preset, device = counted.preset, find_device(memory)
    size, frames = CELLS[preset.generation][at]
    asked = GenerationRequest(prompt="a", model=preset.name, size=size, frames=frames, steps=25, seed=1)
    plan = plan_run(preset.complete(asked), preset, device, counted=counted)
    found: dict[str, Any] = {"cell": f"{size}x{frames}", "original": mode, "taken": None}
    if plan.chosen is not None:
        high = round(plan.chosen.vram.high / GIB, 1)
        found |= {"taken": plan.chosen.offload.name, "peak_gib": high}
        found |= {"tiled": plan.chosen.tiled, "apart": plan.chosen.apart}
    else:
        found["why_not"] = min(plan.others, key=lambda other: other.vram.high).short
    if mode in MODES:
        same = GenerationRequest.model_validate(
            {**asked.model_dump(mode="json"), "offload": MODES[mode], "storage": "auto"}
        )
        then = plan_run(preset.complete(same), preset, device, counted=counted)
        found["original_fits"] = then.chosen is not None
    return found


def told(found: dict[str, Any]) -> str:
    """A cell for people: `t` decoded in tiles, `2` guidance in two passes, `(!)` the original's mode would not fit."""
    marks = {"t": found.get("tiled"), "2": found.get("apart"), "(!)": not found.get("original_fits", True)}
    taken = [found["taken"] or "–", *([str(found["peak_gib"])] if found["taken"] else [])]
    before = [f"{found['original']} →"] if found["original"] != "." else []
    return " ".join([*before, *taken, *(mark for mark, said in marks.items() if said)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the table there, too")
    arguments = parser.parse_args()
    written: dict[str, Any] = {}
    for model, rows in ORIGINAL.items():
        counted = Counted(find_preset(model), None, torch.bfloat16)
        written[model] = {}
        cells_of = CELLS[counted.preset.generation]
        print(f"\n| {model} |", " | ".join(f"{size}x{frames}" for size, frames in cells_of), "|")
        for memory, modes in rows.items():
            cells = [cell(counted, memory, at, mode) for at, mode in enumerate(modes)]
            written[model][memory] = cells
            print(f"| {memory} |", " | ".join(map(told, cells)), "|", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
