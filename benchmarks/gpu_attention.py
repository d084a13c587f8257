"""Attention of V5.1 at the six sizes, by backend: TFLOP/s, share of the product ceiling, error against float32.

`python benchmarks/gpu_attention.py [--head-dim 64] [--minutes 9] [--tiny]`. Also measures the ceilings that other
figures refer to: a large product, copies on the device, and copies to it. `--tiny` is a dry run on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from measuring import CELLS, TINY_CELLS, in_turn, save, seconds
from models import TEXT, gemm_ceiling

from easyanimate_core.interfaces import AttentionBackend
from easyanimate_core.kernels.attention.backends import Cudnn, Flash, Sage, TritonAttention, call_of
from easyanimate_core.kernels.attention.options import TritonAttentionOptions
from easyanimate_core.kernels.attention.reference import Sdpa

_ROWS = 64


def backends(bound: float) -> dict[str, AttentionBackend]:
    return {
        "sdpa": Sdpa(), "cudnn": Cudnn(), "flash": Flash(), "sage": Sage(), "triton": TritonAttention(),
        "triton bounded": TritonAttention(bound=bound),
        "triton int8": TritonAttention(TritonAttentionOptions(qk="int8")),
    }  # fmt: skip


def unit(x: torch.Tensor) -> torch.Tensor:
    """As a layer norm of heads leaves them: length √D, so logits stay within √D."""
    return torch.nn.functional.layer_norm(x.float(), (x.shape[-1],)).to(x.dtype)


def measure(length: int, heads: int, dim: int, device: str, dtype: torch.dtype, runs: int) -> dict[str, Any]:
    q, k, v = (torch.randn(2, heads, length, dim, device=device, dtype=dtype) for _ in range(3))
    q, k = unit(q), unit(k)
    exact = (q[:, :, :_ROWS].float() @ k.float().transpose(-2, -1) * dim**-0.5).softmax(-1) @ v.float()
    usable, refused, errors = {}, {}, {}
    for name, backend in backends(dim**0.5).items():
        if (reason := backend.supports(call_of(q, None))) is not None:
            refused[name] = reason
            continue
        try:
            out = backend(q, k, v)[:, :, :_ROWS].float()
        except (RuntimeError, TypeError, ValueError, ImportError) as error:
            refused[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        errors[name] = float((out - exact).norm() / exact.norm())
        usable[name] = lambda run=backend: run(q, k, v)
    times = in_turn(usable, runs, device)
    flop = 4.0 * 2 * heads * length**2 * dim
    middle = {name: statistics.median(t) for name, t in times.items()}
    return {
        "length": length, "milliseconds": {n: round(1e3 * s, 3) for n, s in middle.items()},
        "tflops": {n: round(flop / s / 1e12, 2) for n, s in middle.items()}, "error": errors, "refused": refused,
    }  # fmt: skip


def ceilings(device: str, dtype: torch.dtype, side: int, megabytes: int) -> dict[str, float]:
    count = megabytes * 2**20
    here, there = (torch.empty(count, dtype=torch.uint8, device=device) for _ in range(2))
    pageable = torch.ones(count, dtype=torch.uint8)
    found = {"product_tflops": gemm_ceiling(device, dtype, side) / 1e12}
    found["device_copy_gb_s"] = 2e-9 * count / min(seconds(lambda: there.copy_(here), device) for _ in range(5))
    found["pageable_copy_gb_s"] = 1e-9 * count / min(seconds(lambda: here.copy_(pageable), device) for _ in range(3))
    if device == "cuda":
        pinned = pageable.pin_memory()
        found["pinned_copy_gb_s"] = (
            1e-9 * count / min(seconds(lambda: here.copy_(pinned, non_blocking=True), device) for _ in range(5))
        )
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    device, dtype, heads = ("cpu", torch.float32, 2) if given.tiny else ("cuda", torch.bfloat16, 48)
    began, results = time.time(), []
    with torch.no_grad():
        limits = ceilings(device, dtype, *((256, 4) if given.tiny else (8192, 1024)))
        print(limits)
        for cell in TINY_CELLS if given.tiny else CELLS:
            if time.time() - began > 60 * given.minutes:
                print(f"out of time before {cell}")
                break
            results.append(
                {"cell": str(cell), **measure(cell.tokens + TEXT, heads, given.head_dim, device, dtype, given.runs)}
            )
            print(f"{cell}: TFLOP/s {results[-1]['tflops']}  refused {sorted(results[-1]['refused'])}", flush=True)
            save(f"gpu_attention-{given.head_dim}", {"ceilings": limits, "cells": results}, device, dry=given.tiny)


if __name__ == "__main__":
    main()
