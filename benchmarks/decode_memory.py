"""Does decoding need more memory for a longer clip? `python benchmarks/decode_memory.py [--size 192]`.

Every row is a process of its own with a tiny VAE. `streamed` is how the engine works: chunk by chunk from the VAE into
the encoder. `whole` makes the clip first, as `Pipeline(...)` in Python does. Numbers are what the peak of resident
memory grew by while decoding, beyond the process before it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

FRAMES = (17, 33, 65, 129, 257)

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=192, help="side of a frame in pixels")
    parser.add_argument("--one", nargs=2, metavar=("HOW", "FRAMES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(arguments.one[0], int(arguments.one[1]), arguments.size, Path(folder)))
        return
    print(f"{'frames':>6}  {'streamed MB':>11}  {'whole MB':>8}")
    for frames in FRAMES:
        grown = []
        for how in ("streamed", "whole"):
            line = [sys.executable, __file__, "--size", str(arguments.size), "--one", how, str(frames)]
            done = subprocess.run(line, capture_output=True, text=True, check=True, env={**os.environ, **GIVE_BACK})
            grown.append(float(done.stdout))
        print(f"{frames:>6}  {grown[0]:>11.0f}  {grown[1]:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
