"""What a step takes at the real sizes, counted on the meta device: `python benchmarks/counts.py [--json FILE]`.

Runs anywhere, in seconds; nothing is measured, so nothing depends on the machine. `eager` is every operation by
itself, as without a GPU; `fused` is with the kernels that a CUDA device gets. Per layer, and in *units*: one unit is
the bytes of the video tokens, batch × tokens × width × 2.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from easyanimate_core.data import Geometry
from easyanimate_core.engine.planner.predict import Work, work_of
from easyanimate_core.engine.planner.sketch import Sketch, sketch
from easyanimate_core.presets import find_preset
from easyanimate_core.schema import Choice
from easyanimate_core.slots import OFFLOAD, STORAGE

CELLS = ((384, 672, 25), (384, 672, 49), (576, 1008, 25), (576, 1008, 49), (768, 1344, 25), (768, 1344, 49))
PLACES = ("resident", "model", "group", "sequential", "stream")


def unit(model: Sketch, geometry: Geometry) -> int:
    """Bytes of the video tokens of both halves."""
    denoiser: Any = model.modules["denoiser"]
    vae: Any = model.modules["vae"]
    config = denoiser.config
    _, _, f, h, w = vae.compression.latent_shape(geometry)
    width = config.num_attention_heads * config.attention_head_dim
    return 2 * f * (h // config.patch_size) * (w // config.patch_size) * width * 2


def row(model: Sketch, work: Work, geometry: Geometry) -> dict[str, Any]:
    denoiser: Any = model.modules["denoiser"]
    layers, size = denoiser.config.num_layers, unit(model, geometry)
    fused, eager = work.step
    found: dict[str, Any] = {
        "cell": f"{geometry.height}x{geometry.width}x{geometry.frames}",
        "linear_tflop": round(eager.matmul / 1e12, 1),
        "attention_tflop": round(eager.attention / 1e12, 1),
    }
    for name, counts in (("eager", eager), ("fused", fused)):
        found[name] = {
            "kernels_per_layer": round(counts.kernels / layers, 1),
            "other_kernels_per_layer": round((counts.kernels - counts.products) / layers, 1),
            "other_units_per_layer": round(counts.moved / layers / size, 1),
            "other_gb_per_step": round(counts.moved / 1e9),
            "peak_units": round(counts.peak / size, 1),
            "peak_gib": round(counts.peak / 2**30, 2),
        }
    found["decode_peak_gib"] = round(work.decode.peak / 2**30, 2)
    return found


def placements(name: str) -> list[dict[str, Any]]:
    """Bytes of the denoiser's weights on the device, and brought there per step, by offload and storage."""
    rows = []
    for storage in ("native", "float8", "int8"):
        model = sketch(find_preset(name), None, torch.bfloat16, Choice.of(STORAGE, storage).create())
        for place in PLACES:
            strategy: Any = Choice.of(OFFLOAD, place).create()
            foot = strategy.footprint("denoiser", model.modules["denoiser"])
            rows.append(
                {
                    "offload": place,
                    "storage": storage,
                    "weights_on_device_gib": round(foot.used / 2**30, 2),
                    "host_to_device_gb_per_step": round(foot.moved / 1e9, 2),
                    "copies_per_step": foot.pieces,
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    flat = [{k: v for name, value in r.items() for k, v in (
        {f"{name}.{inner}": x for inner, x in value.items()} if isinstance(value, dict) else {name: value}
    ).items()} for r in rows]  # fmt: skip
    for heading in flat[0]:
        print(f"{heading:34}", *(f"{r[heading]!s:>13}" for r in flat))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["v5.1-12b", "v5.1-7b"])
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    arguments = parser.parse_args()
    written: dict[str, Any] = {"torch": torch.__version__}
    for name in arguments.models:
        preset = find_preset(name)
        model = sketch(preset, None, torch.bfloat16, Choice.of(STORAGE, "native").create())
        rows = []
        for cell in CELLS:
            geometry = Geometry(*cell)
            work = work_of(model, geometry, 25, guided=True, dtype=torch.bfloat16)
            rows.append(row(model, work, geometry))
        print(f"\n{name}: one step with guidance, both halves as one batch, bfloat16")
        table(rows)
        print(f"\n{name}: the denoiser's weights")
        placed = placements(name)
        for at in range(0, len(placed), len(PLACES)):
            table(placed[at : at + len(PLACES)])
        written[name] = {"cells": rows, "placements": placed}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
