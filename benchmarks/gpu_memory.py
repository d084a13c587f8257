"""A guided step of V5.1 under memory budgets, by offload strategy: seconds, peak, slowdown against resident.

`python benchmarks/gpu_memory.py [--size 12b] [--minutes 9] [--tiny]`. One card stands for smaller ones: torch is not
let beyond the budget, so what does not fit fails here too. The link and the rate stay those of this card, which the
result names. How much weights may have of a budget, and whether the halves of guidance take turns, is what the planner
says; what it foresees stands beside what was measured. `--tiny` is a dry run on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from measuring import CELLS, TINY_CELLS, Cell, save, seconds
from models import embedding, inputs, ours

from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.engine.planner import find_device, plan_run
from easyanimate_core.engine.planner.choose import Counted
from easyanimate_core.errors import EasyAnimateError
from easyanimate_core.events import SILENT, CancelToken
from easyanimate_core.interfaces import OffloadStrategy, Toolbox
from easyanimate_core.kernels.attention.auto import Auto
from easyanimate_core.plugins import active
from easyanimate_core.presets import find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.samplers.catalog import Flow
from easyanimate_core.slots import OFFLOAD

BUDGETS_GIB = (8, 16, 24)
GIB = 2**30


class NoVAE:
    """Stands where a toolbox has its VAE; only the transformer is measured."""


@dataclass(frozen=True)
class Foreseen:
    """What the planner says of a cell under a budget: bytes for weights, two passes, GiB while denoising."""

    weights: int
    apart: bool
    peak_gib: float


def foreseen(size: str, cells: tuple[Cell, ...], budget: int, device: str) -> dict[Cell, Foreseen]:
    """By cell that fits; for a dry run, numbers that try everything."""
    if size == "tiny":
        return {cell: Foreseen(1 << 16, apart=True, peak_gib=0.0) for cell in cells}
    preset, place = find_preset(f"v5.1-{size}"), find_device(device)
    counted, found = Counted(preset, None, torch.bfloat16), {}
    for cell in cells:
        request = GenerationRequest(
            prompt="a", model=preset.name, size=f"{cell.height}x{cell.width}", frames=cell.frames, seed=0,
            offload={"name": "stream", "source": "ram"}, vram_budget=f"{budget}GiB",
        )  # fmt: skip
        plan = plan_run(preset.complete(request), preset, place, counted=counted)
        if (taken := plan.chosen) is not None:
            found[cell] = Foreseen(taken.offload.given["budget"], taken.apart, taken.stages["denoise"] / GIB)
    return found


def toolbox(model: MMDiT, strategy: OffloadStrategy, device: str, dtype: torch.dtype) -> Toolbox:
    vae: Any = NoVAE()
    return Toolbox(
        text_encoders=(), denoiser=model, vae=vae, sampler=Flow(), offload=strategy, device=torch.device(device),
        dtype=dtype, events=SILENT, cancel=CancelToken(),
    )  # fmt: skip


@contextmanager
def within(budget: float | None, device: str) -> Iterator[None]:
    """Let torch have no more than this many GiB."""
    if device != "cuda" or budget is None:
        yield
        return
    whole = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(budget / whole, 1.0))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def timed(run: Callable[[], object], device: str, runs: int) -> tuple[float, float]:
    """Median seconds, and the peak that torch reserved, in GiB."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run()
    median = statistics.median(seconds(run, device) for _ in range(runs))
    return median, torch.cuda.max_memory_reserved() / 2**30 if device == "cuda" else 0.0


def measure(
    model: MMDiT,
    name: str,
    options: dict[str, Any],
    budget: float | None,
    cells: Mapping[Cell, Foreseen | None],
    given: Any,
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with within(budget, given.device):
        strategy = active().registries[OFFLOAD].create(name, options)
        strategy.attach(toolbox(model, strategy, given.device, given.dtype), torch.device(given.device))
        try:
            for cell, said in cells.items():
                if time.time() > given.until:
                    break
                apart = said is not None and said.apart
                told = {} if said is None else {"apart": apart, "foreseen_gib": round(said.peak_gib, 2)}
                found.append({"cell": str(cell), **told, **_cell(model, strategy, cell, given, apart=apart)})
                print(f"{name} {budget or ''} {found[-1]}", flush=True)
        finally:
            strategy.detach()
    return found


def _cell(model: MMDiT, strategy: OffloadStrategy, cell: Cell, given: Any, *, apart: bool) -> dict[str, Any]:
    latents, timestep, text = inputs(given.size, cell, given.device, given.dtype)
    batches = (slice(0, 1), slice(1, 2)) if apart else (slice(None),)

    def step() -> list[torch.Tensor]:
        whole = [(latents[part], timestep[part], embedding(text[part])) for part in batches]
        return [model.head(model.trunk(model.embed(x, when, told, {}))) for x, when, told in whole]

    try:
        with strategy.using("denoiser"):
            took, peak = timed(step, given.device, given.runs)
    except (torch.OutOfMemoryError, EasyAnimateError) as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    return {"seconds": round(took, 4), "peak_gib": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="12b", choices=("12b", "7b"))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    given.device, given.dtype = ("cpu", torch.float32) if given.tiny else ("cuda", torch.bfloat16)
    given.size, given.until = "tiny" if given.tiny else given.size, time.time() + 60 * given.minutes
    cells = TINY_CELLS[:1] if given.tiny else CELLS
    results: list[dict[str, Any]] = []
    with torch.no_grad():
        model = ours(given.size, given.device, given.dtype).to("cpu")
        model.set_attention(Auto())
        results.append(
            {
                "strategy": "resident",
                "budget_gib": None,
                "cells": measure(model, "resident", {}, None, dict.fromkeys(cells), given),
            }
        )
        for budget in BUDGETS_GIB:
            said = foreseen(given.size, cells, budget, given.device)
            # One placement for all sizes: that of the one which leaves weights least.
            stream = {"budget": min(one.weights for one in said.values())}
            # The slow ones are there for one comparison: the smallest two sizes at the smallest budget.
            few = {cell: one for cell, one in said.items() if cell in cells[:2]}
            slow = {"group": {}, "sequential": {}} if budget == BUDGETS_GIB[0] else {}
            for name, options in {"stream": stream, **slow}.items():
                some = said if name == "stream" else few
                found = measure(model, name, options, float(budget), some, given)
                results.append({"strategy": name, "options": options, "budget_gib": budget, "cells": found})
    resident = {c["cell"]: c.get("seconds") for c in results[0]["cells"]}
    for result in results[1:]:
        for c in result["cells"]:
            if c.get("seconds") and resident.get(c["cell"]):
                c["slowdown"] = round(c["seconds"] / resident[c["cell"]], 3)
    save(f"gpu_memory-{given.size}", {"results": results}, given.device, dry=given.tiny)


if __name__ == "__main__":
    main()
