"""Which placement the planner takes in each cell of the original's memory tables: `python benchmarks/memory_table.py`.

Predictions, from counts on the meta device; see docs/reference/plan.md. `M`, `Q` and `S` are the original's modes:
model offload, the same with float8, sequential offload.
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

CELLS = (("384x672", 25), ("384x672", 49), ("576x1008", 25), ("576x1008", 49), ("768x1344", 25), ("768x1344", 49))
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
}
MODES = {"M": "model_cpu_offload", "Q": "model_cpu_offload_and_qfloat8", "S": "sequential_cpu_offload"}


def cell(counted: Counted, memory: str, at: int, mode: str) -> dict[str, Any]:
    """What is taken in one cell, and whether the original's mode would fit as well."""
    size, frames = CELLS[at]
    preset, device = counted.preset, find_device(memory)
    asked = GenerationRequest(prompt="a", model=preset.name, size=size, frames=frames, steps=25, seed=1)
    plan = plan_run(preset.complete(asked), preset, device, counted=counted)
    found: dict[str, Any] = {"cell": f"{size}x{frames}", "original": mode, "taken": None}
    if plan.chosen is not None:
        high = round(plan.chosen.vram.high / GIB, 1)
        found |= {"taken": plan.chosen.offload.name, "peak_gib": high, "tiled": plan.chosen.tiled}
    else:
        found["why_not"] = min(plan.others, key=lambda other: other.vram.high).short
    if mode in MODES:
        same = GenerationRequest.model_validate(
            {**asked.model_dump(mode="json"), "offload": MODES[mode], "storage": "auto"}
        )
        then = plan_run(preset.complete(same), preset, device, counted=counted)
        found["original_fits"] = then.chosen is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the table there, too")
    arguments = parser.parse_args()
    written: dict[str, Any] = {}
    for model, rows in ORIGINAL.items():
        counted = Counted(find_preset(model), None, torch.bfloat16)
        written[model] = {}
        print(f"\n| {model} |", " | ".join(f"{size}x{frames}" for size, frames in CELLS), "|")
        for memory, modes in rows.items():
            cells = [cell(counted, memory, at, mode) for at, mode in enumerate(modes)]
            written[model][memory] = cells
            said = [
                f"{c['original'].replace('.', '?')} → {c['taken'] or '–'} {c.get('peak_gib', '')}".strip()
                + (" tiled" if c.get("tiled") else "") + ("" if c.get("original_fits", True) else " (!)")
                for c in cells
            ]  # fmt: skip
            print(f"| {memory} |", " | ".join(said), "|", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
