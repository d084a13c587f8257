"""What the released V5.1 VAE needs at its peak: `python benchmarks/vae_memory.py [--size 768x1344] [--frames 49]`.

Nothing is computed and no weights are read: operations run on the meta device in bfloat16, and every tensor is counted
from when it is made until nobody holds it. Workspaces of convolutions are not in it, nor are weights (0.46 GiB).
"""

from __future__ import annotations

import argparse

import torch

from easyanimate_core.data import Geometry
from easyanimate_core.testing.memory import PeakMemory
from easyanimate_core.vae.magvit import Magvit

CONFIG = {
    "latent_channels": 16,
    "mid_block_use_attention": False,
    "mid_block_attention_type": "spatial",
    "spatial_group_norm": True,
    "slice_mag_vae": False,
    "cache_mag_vae": True,
    "mini_batch_encoder": 4,
    "mini_batch_decoder": 1,
    "scaling_factor": 0.7125,
}


def counted(vae: Magvit, what: str, geometry: Geometry) -> PeakMemory:
    """Decodes or encodes a video of this size; finished frames are taken away as they come."""
    shape = vae.compression.latent_shape(geometry)
    if what == "encode":
        shape = (1, 3, geometry.frames, geometry.height, geometry.width)
    given = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    with torch.no_grad(), PeakMemory() as memory:
        if what == "encode":
            vae.encode_video(given)
        else:
            for _ in vae.decode_stream(given):
                pass
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="768x1344", help="height x width in pixels")
    parser.add_argument("--frames", type=int, default=49)
    arguments = parser.parse_args()
    height, width = (int(side) for side in arguments.size.split("x"))
    with torch.device("meta"):
        vae = Magvit(**CONFIG).bfloat16()
    print(f"{height}x{width}, {arguments.frames} frames, bfloat16")
    print(f"{'':8} {'tiles':>6} {'peak GiB':>9} {'operations':>11}")
    for what in ("encode", "decode"):
        for tiles in (False, True):
            vae.set_tiling(tiles)
            memory = counted(vae, what, Geometry(height, width, arguments.frames))
            print(f"{what:8} {tiles!s:>6} {memory.peak / 2**30:>9.2f} {memory.operations:>11,}", flush=True)


if __name__ == "__main__":
    main()
