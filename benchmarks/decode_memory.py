"""Does decoding need more memory for a longer clip? `python benchmarks/decode_memory.py [--size 192] [--keep]`.

Every row is a process of its own with a tiny VAE. `streamed` is how the engine works: chunk by chunk from the VAE into
the encoder. `whole` makes the clip first, as `Pipeline(...)` in Python does. Numbers are what the peak of resident
memory grew by while decoding, beyond the process before it. `--keep` writes them to `results/decode_memory.json`, and
their picture to `docs/images/decode_memory.svg`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FRAMES = (17, 33, 65, 129, 257)
HOWS = ("streamed", "whole")

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "decode_memory.json"
PICTURE = HERE.parent / "docs" / "images" / "decode_memory.svg"

# glibc would keep freed blocks for later, more of them by chance than the work needs.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_mb() -> float:
    """Peak of resident memory of this process in MB (10⁶ bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(how: str, frames: int, size: int, folder: Path) -> float:
    """MB that decoding a clip adds to the peak."""
    import torch

    from easyanimate_core.data import Geometry, Video
    from easyanimate_core.events import SILENT, CancelToken
    from easyanimate_core.media.write import VideoWriter
    from easyanimate_core.pipeline.decode import decoded
    from easyanimate_core.testing.tiny import VAE_CONFIG
    from easyanimate_core.vae.magvit import Magvit

    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = Magvit(**VAE_CONFIG).eval()

    def clip(count: int, path: Path) -> None:
        latents = torch.randn(vae.compression.latent_shape(Geometry(size, size, count)))
        chunks = decoded(vae, latents, count, SILENT, CancelToken())
        if how == "whole":
            Video(torch.cat(list(chunks), dim=2), 8).save(path)
            return
        with VideoWriter(path, fps=8) as writer:
            for chunk in chunks:
                writer.write(chunk[0].permute(1, 2, 3, 0))

    with torch.no_grad():
        clip(5, folder / "warm.mp4")  # loads codecs and kernels
        before = peak_mb()
        clip(frames, folder / "clip.mp4")
    return peak_mb() - before


def machine() -> str:
    """What the figures were taken on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return f"{cores} cores of {name}, {platform.system()}"


def drawn(document: dict[str, Any]) -> str:
    """The picture as SVG: peak of memory over frames, one line for each way."""
    width, height, left, bottom = 480, 260, 48, 36
    most_frames, most_mb = FRAMES[-1], max(max(row[how] for how in HOWS) for row in document["mb"])

    def at(frames: float, mb: float) -> str:
        x = left + (width - left - 80) * frames / most_frames
        return f"{x:.1f},{height - bottom - (height - bottom - 24) * mb / most_mb:.1f}"

    marks = []
    for frames in (0, *FRAMES):
        x, y = at(frames, 0).split(",")
        marks.append(f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{frames}</text>')
    for mb in range(0, int(most_mb) + 1, 25):
        x, y = at(0, mb).split(",")
        end = at(most_frames, mb).split(",")[0]
        marks.append(f'<text x="{float(x) - 6:.1f}" y="{float(y) + 4:.1f}" text-anchor="end">{mb}</text>')
        marks.append(f'<path d="M{x},{y} H{end}" stroke="#8886"/>')
    for how, colour in zip(HOWS, ("#2a7", "#c43"), strict=True):
        points = [at(row["frames"], row[how]) for row in document["mb"]]
        x, y = points[-1].split(",")
        marks.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks += [f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3" fill="{colour}"/>' for p in points]
        marks.append(f'<text x="{float(x) + 8:.1f}" y="{float(y) + 4:.1f}" style="fill:{colour}">{how}</text>')
    title = f"MB that decoding adds to the peak of memory, by frames of {document['size']}x{document['size']} px"
    style = "text{font:12px sans-serif;fill:#777}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
    return "\n".join([head, f"<style>{style}</style>", f'<text x="8" y="14">{title}</text>', *marks, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=192, help="side of a frame in pixels")
    parser.add_argument("--keep", action="store_true", help="write the results and their picture")
    parser.add_argument("--one", nargs=2, metavar=("HOW", "FRAMES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(arguments.one[0], int(arguments.one[1]), arguments.size, Path(folder)))
        return
    print(f"{'frames':>6}  {'streamed MB':>11}  {'whole MB':>8}")
    rows: list[dict[str, float]] = []
    for frames in FRAMES:
        row: dict[str, float] = {"frames": frames}
        for how in HOWS:
            line = [sys.executable, __file__, "--size", str(arguments.size), "--one", how, str(frames)]
            done = subprocess.run(line, capture_output=True, text=True, check=True, env={**os.environ, **GIVE_BACK})
            row[how] = round(float(done.stdout), 1)
        print(f"{frames:>6}  {row['streamed']:>11.0f}  {row['whole']:>8.0f}", flush=True)
        rows.append(row)
    if arguments.keep:
        document = {"what": "MB added to the peak of resident memory", "machine": machine(), "threads": 1}
        document |= {"size": arguments.size, "mb": rows}
        for path, text in ((RESULTS, json.dumps(document, indent=2) + "\n"), (PICTURE, drawn(document))):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
