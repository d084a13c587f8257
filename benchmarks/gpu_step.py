"""One guided denoising step of V5.1 at the six sizes, ours against diffusers', over the same random weights.

`python benchmarks/gpu_step.py [--compiled] [--size 7b] [--minutes 9] [--tiny]`. `--compiled` measures diffusers under
torch.compile instead of eager; compiling takes minutes, so it is a run of its own. `--tiny` is a dry run on a CPU.
The first half of the 7B model has blocks that diffusers computes otherwise; times are comparable, outputs are not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from measuring import CELLS, TINY_CELLS, Cell, geometric_mean, in_turn, ratio, save
from models import embedding, gemm_ceiling, inputs, ours, step_flop, theirs

from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.kernels import use
from easyanimate_core.kernels.attention.auto import Auto
from easyanimate_core.kernels.attention.chosen import ChosenAttention
from easyanimate_core.kernels.attention.reference import Sdpa


def variants(
    model: MMDiT, port: Any, size: str, cell: Cell, device: str, dtype: torch.dtype
) -> tuple[dict[str, Callable[[], torch.Tensor]], ChosenAttention]:
    latents, timestep, text = inputs(size, cell, device, dtype)
    given, chosen = embedding(text), ChosenAttention("auto", Auto())
    model.set_attention(chosen)
    prepared = model.prepared(timestep[:1], given, dtype)
    assert prepared is not None

    def fused() -> torch.Tensor:
        model.set_attention(chosen)
        return prepared[0].head(prepared[0].trunk(prepared[0].embed(latents, timestep, given, {})))

    def plain() -> torch.Tensor:
        model.set_attention(Sdpa())
        with use("reference"):
            return model(latents, timestep, text)

    def diffusers() -> torch.Tensor:
        answer: torch.Tensor = port(latents, timestep, encoder_hidden_states=text, return_dict=False)[0]
        return answer

    return {"diffusers": diffusers, "ours": fused, "ours without kernels": plain}, chosen


def measure(model: MMDiT, port: Any, cell: Cell, given: argparse.Namespace, ceiling: float) -> dict[str, Any]:
    cases, chosen = variants(model, port, given.size, cell, given.device, given.dtype)
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    peaks = {}
    for name, run in cases.items():
        if given.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        out = run()
        peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**30 if given.device == "cuda" else 0.0
        assert out.isfinite().all()
    off = float((cases["ours"]() - cases["ours without kernels"]()).float().norm())
    size = float(cases["ours without kernels"]().float().norm())
    times = in_turn(cases, given.runs, given.device, warm=1)
    flop = step_flop(given.size, cell)
    middle = {name: statistics.median(t) for name, t in times.items()}
    return {
        "cell": str(cell), "tokens": cell.tokens, "seconds": {n: round(s, 5) for n, s in middle.items()},
        "tflops": {n: round(flop / s / 1e12, 2) for n, s in middle.items()},
        "share_of_ceiling": {n: round(flop / s / ceiling, 3) for n, s in middle.items()},
        "activations_gib": {n: round(p, 3) for n, p in peaks.items()},
        "faster": ratio(times["diffusers"], times["ours"]), "relative_difference": off / size, "attention": str(chosen),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--size", default="12b", choices=("12b", "7b"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=9.0)
    given = parser.parse_args()
    given.device, given.dtype = ("cpu", torch.float32) if given.tiny else ("cuda", torch.bfloat16)
    given.size = "tiny" if given.tiny else given.size
    began, results = time.time(), []
    with torch.no_grad():
        ceiling = gemm_ceiling(given.device, given.dtype, 256 if given.tiny else 8192)
        model = ours(given.size, given.device, given.dtype)
        port = theirs(model, given.size)
        if given.compiled:
            port = torch.compile(port, dynamic=False)
        rate = 0.0
        for cell in TINY_CELLS if given.tiny else CELLS:
            # A cell takes as long as its products, measured on the one before.
            if time.time() - began + rate * step_flop(given.size, cell) > 60 * given.minutes:
                print(f"out of time before {cell}")
                break
            started = time.time()
            results.append(measure(model, port, cell, given, ceiling))
            rate = (time.time() - started) / step_flop(given.size, cell)
            r = results[-1]
            print(f"{r['cell']}: {r['seconds']}  {r['faster']['median']}x  attention {r['attention']}", flush=True)
            # After every cell: what is measured stays, if time runs out in the next.
            report(results, ceiling, given)


def report(results: list[dict[str, Any]], ceiling: float, given: argparse.Namespace) -> None:
    baseline = "compiled" if given.compiled else "eager"
    whole = geometric_mean([r["faster"]["median"] for r in results])
    print(f"geometric mean against diffusers {baseline}: {whole:.3f}x; product ceiling {ceiling / 1e12:.1f} TFLOP/s")
    document = {"size": given.size, "baseline": baseline, "ceiling_tflops": ceiling / 1e12, "geomean": whole}
    save(f"gpu_step-{given.size}-{baseline}", {**document, "cells": results}, given.device, dry=given.tiny)


if __name__ == "__main__":
    main()
