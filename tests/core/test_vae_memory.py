"""What the VAE of V5.1 needs at its peak, counted at the released size without its weights."""

from __future__ import annotations

import pytest
import torch

from easyanimate_core.testing.memory import PeakMemory
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit

GIB = 2**30
RELEASED = {
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


def decoding(vae: Magvit, height: int, width: int, latent_frames: int) -> int:
    """Bytes that decoding needs at its peak, when finished frames are taken away at once."""
    shape = (1, vae.compression.channels, latent_frames, height // 8, width // 8)
    latents = torch.empty(shape, dtype=vae.dtype, device="meta")
    with torch.no_grad(), PeakMemory() as memory:
        for _ in vae.decode_stream(latents):
            pass
    return memory.peak


def test_tensors_count_from_when_they_are_made_until_nobody_holds_them() -> None:
    given = torch.empty(1024, device="meta")
    with PeakMemory() as memory:
        a = given + 1
        b = a.view(2, 512).t()
        assert memory.now == 4096
        c = a.exp_() * 2
        assert memory.now == 8192
        del a, c
        assert memory.now == 4096  # `b` is a view of what was `a`
        del b
    assert (memory.now, memory.peak) == (0, 8192)


def test_a_real_computation_counts_as_a_meta_one() -> None:
    counts = []
    for device in ("cpu", "meta"):
        x = torch.ones(2, 4, 8, 8, device=device)
        with PeakMemory() as memory:
            torch.nn.functional.interpolate(torch.relu(x), scale_factor=2.0).mean()
        counts.append(memory.peak)
    assert counts[0] == counts[1] == 5 * 2048


@pytest.mark.feature("C026")
def test_a_large_video_is_decoded_in_little_memory() -> None:
    """768x1344, 49 frames, in bfloat16: at most 2.5 GiB in tiles. `benchmarks/vae_memory.py` counts it all, slowly."""
    with torch.device("meta"):
        released = Magvit(**RELEASED).bfloat16()
    one_tile = decoding(released, 384, 384, 3)  # its peak is reached in the third run
    # Three rows and five columns of tiles, of which the last ones are shorter, and the corner.
    finished = (48 + 48 + 24) * (4 * 48 + 24) + 48 * 48
    assert one_tile + finished * 64 * 3 * 49 * 2 <= 2.5 * GIB


@pytest.mark.feature("C026")
def test_tiles_are_decoded_one_after_the_other() -> None:
    """All that is held besides the one being decoded are the frames of the others."""
    with torch.device("meta"):
        tiny = Magvit(**VAE_CONFIG)
    one_tile = decoding(tiny, 48, 64, 3)
    tiny.set_tiling(True, size=64)
    latents, others = 4 * 16 * 3 * 6 * 10, 4 * 9 * 3 * 48 * (64 + 32 + 64)
    assert decoding(tiny, 48, 80, 3) <= one_tile + latents + others


def test_a_longer_clip_needs_no_more() -> None:
    with torch.device("meta"):
        tiny = Magvit(**VAE_CONFIG)
    one_latent_frame = 4 * 16 * 4 * 4
    assert decoding(tiny, 32, 32, 5) <= decoding(tiny, 32, 32, 4) + one_latent_frame
