"""Decoding at the six sizes, our VAE against diffusers' over the same random weights: seconds and peak memory.

`python benchmarks/gpu_vae.py [--minutes 9] [--tiny]`. Both decode whole frames and in tiles; ours also with channels
last, which decides whether that becomes the default. `--tiny` is a dry run on a CPU.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from measuring import CELLS, TINY_CELLS, Cell, in_turn, ratio, save
from models import stir

from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit

_WIDTHS = {"released": (128, 256, 512, 512), "tiny": (4, 4, 8, 8)}


def build(size: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from diffusers import AutoencoderKLMagvit

    layers = {"layers_per_block": 2, "norm_num_groups": 32} if size == "released" else {}
    with torch.device("meta"):
        ours = Magvit(**{**VAE_CONFIG, "block_out_channels": list(_WIDTHS[size]), **layers}).to(dtype)
        shape = {
            k: v
            for k, v in {**VAE_CONFIG, **layers}.items()
            if k in ("latent_channels", "layers_per_block", "norm_num_groups")
        }
        port = AutoencoderKLMagvit(
            block_out_channels=list(_WIDTHS[size]), down_block_types=VAE_CONFIG["down_block_types"],
            up_block_types=VAE_CONFIG["up_block_types"], scaling_factor=VAE_CONFIG["scaling_factor"], **shape,
        )  # fmt: skip
    ours = ours.to_empty(device=device).eval()
    stir(ours)
    port.load_state_dict(ours.state_dict(), strict=True, assign=True)
    return ours, port.eval()


def peak(run: Callable[[], object], device: str) -> float:
    """GiB beyond what was there."""
    if device != "cuda":
        run()
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def measure(ours: Any, port: Any, cell: Cell, device: str, dtype: torch.dtype, runs: int) -> dict[str, Any]:
    latents = torch.randn(1, 16, *cell.latent, device=device).to(dtype)
    scale = ours.config.scaling_factor
    found: dict[str, Any] = {"cell": str(cell)}
    last = copy.deepcopy(ours).to(memory_format=torch.channels_last_3d)
    for tiled in (False, True):
        ours.set_tiling(tiled)
        last.set_tiling(tiled)
        port.enable_tiling() if tiled else port.disable_tiling()
        cases: dict[str, Callable[[], object]] = {
            "diffusers": lambda: port.decode(latents, return_dict=False)[0],
            "ours": lambda: [chunk.cpu() for chunk in ours.decode_stream(latents * scale)],
            "ours, channels last": lambda: [chunk.cpu() for chunk in last.decode_stream(latents * scale)],
        }
        name = "tiled" if tiled else "whole"
        try:
            peaks = {who: round(peak(run, device), 3) for who, run in cases.items()}
            times = in_turn(cases, runs, device, warm=0)
        except torch.OutOfMemoryError as error:
            found[name] = str(error).splitlines()[0]
            continue
        found[name] = {
            "seconds": {who: round(statistics.median(t), 4) for who, t in times.items()}, "peak_gib": peaks,
            "faster": ratio(times["diffusers"], times["ours"]),
            "faster, channels last": ratio(times["diffusers"], times["ours, channels last"]),
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    device, dtype = ("cpu", torch.float32) if given.tiny else ("cuda", torch.bfloat16)
    began, results = time.time(), []
    with torch.no_grad():
        ours, port = build("tiny" if given.tiny else "released", device, dtype)
        for cell in TINY_CELLS[:1] if given.tiny else CELLS:
            if time.time() - began > 60 * given.minutes:
                print(f"out of time before {cell}")
                break
            results.append(measure(ours, port, cell, device, dtype, given.runs))
            print(results[-1], flush=True)
            save("gpu_vae", {"cells": results}, device, dry=given.tiny)


if __name__ == "__main__":
    main()
