"""What the benchmarks share: runs in turn, medians of pairs, and a result that says where it comes from."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("easyanimate-core", "torch", "triton", "diffusers", "transformers", "flash-attn", "sageattention")


@dataclass(frozen=True)
class Cell:
    """One size of video, as the tables of EasyAnimate have them."""

    height: int
    width: int
    frames: int

    @property
    def latent(self) -> tuple[int, int, int]:
        return (self.frames - 1) // 4 + 1, self.height // 8, self.width // 8

    @property
    def tokens(self) -> int:
        f, h, w = self.latent
        return f * (h // 2) * (w // 2)

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.frames}"


CELLS = tuple(Cell(h, w, f) for h, w in ((384, 672), (576, 1008), (768, 1344)) for f in (25, 49))
"""The six cells, smallest side first."""

TINY_CELLS = (Cell(64, 96, 5), Cell(64, 96, 9))
"""For a dry run on a CPU."""


def surroundings(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Where, when and with what."""
    device = torch.device(device)
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {},
    }
    for name in _PACKAGES:
        try:
            found["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "device": card.name,
            "capability": f"{card.major}.{card.minor}",
            "memory_gib": round(card.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    else:
        found["device"] = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return found


def settle(device: torch.device | str) -> None:
    """Wait until the device has done everything."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """Wall time of one run on a GPU; on a CPU the processor's own time, which other programs do not lengthen much."""
    clock = time.process_time if torch.device(device).type == "cpu" else time.perf_counter
    settle(device)
    began = clock()
    run()
    settle(device)
    return clock() - began


def in_turn(
    cases: Mapping[str, Callable[[], object]], runs: int, device: torch.device | str = "cpu", *, warm: int = 1
) -> dict[str, list[float]]:
    """Seconds of each case, run one after the other in turn, so that a slow minute slows all of them."""
    for run in cases.values():
        for _ in range(warm):
            run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for index in range(runs):
        # Every other round backwards: nobody always follows the same neighbour.
        for name in list(cases) if index % 2 == 0 else reversed(list(cases)):
            times[name].append(seconds(cases[name], device))
    return times


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times faster: median of the pairs' ratios, with their quartiles."""
    pairs = sorted(s / f for s, f in zip(slow, fast, strict=True))
    low, _, high = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else (pairs[0],) * 3
    return {"median": round(statistics.median(pairs), 3), "low": round(low, 3), "high": round(high, 3)}


def geometric_mean(values: list[float]) -> float:
    return statistics.geometric_mean(values) if values else float("nan")


def save(
    name: str, document: Mapping[str, Any], device: torch.device | str = "cpu", *, dry: bool = False
) -> Path | None:
    """Write `results/<name>-<device>.json`, or into the folder EASYANIMATE_BENCH_OUT. A dry run writes nothing."""
    whole = {"benchmark": name, **surroundings(device), **document}
    if dry:
        json.dumps(whole)
        return None
    where = Path(os.environ.get("EASYANIMATE_BENCH_OUT", RESULTS))
    where.mkdir(parents=True, exist_ok=True)
    label = "".join(c if c.isalnum() else "-" for c in str(whole["device"]).lower()).strip("-")
    path = where / f"{name}-{label}.json"
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {path.name}")
    return path
