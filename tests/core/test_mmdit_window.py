"""Sliding-window attention (`swa_layers`): the direct definition, with masks over all pairs, in float64.

No release uses it and nothing of it is recorded; the definition is that of the original's option.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from easyanimate_core.checkpoints.convert import convert_checkpoint
from easyanimate_core.cli.main import run
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.denoisers.mmdit.window import SlidingWindow
from easyanimate_core.errors import CheckpointMismatch, ConfigError
from easyanimate_core.kernels.attention.reference import Sdpa
from easyanimate_core.media.read import read_video
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG, write_checkpoint

pytestmark = pytest.mark.feature("C014")

WAYS = ("fhw", "fwh", "hfw", "hwf", "wfh", "whf")


def heads(count: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 2, count, tokens, 4, dtype=torch.float64).unbind()
    return q, k, v


def softmaxed(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    logits = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~seen, float("-inf"))
    attended: Tensor = logits.softmax(-1) @ v
    return attended


def places_along(way: str, grid: dict[str, int]) -> Tensor:
    """The place of every token, in frame-major order, when they are walked through along a way."""
    order = sorted(
        product(range(grid["f"]), range(grid["h"]), range(grid["w"])), key=lambda at: [at["fhw".index(a)] for a in way]
    )
    number = {at: place for place, at in enumerate(order)}
    return torch.tensor([number[at] for at in sorted(order)])


def directly(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int, int], text: int) -> Tensor:
    """[text, video] by masks over all pairs of tokens."""
    sides = dict(zip("fhw", grid, strict=True))
    video = grid[0] * grid[1] * grid[2]
    every = max(video // (1024 - text), 1)
    is_text = torch.arange(text + video) < text
    sampled = ~is_text & ((torch.arange(text + video) - text) % every == 0)
    cross = softmaxed(q, k, v, (is_text | sampled).expand(text + video, -1))
    near = []
    for head, group in enumerate(
        group for group, part in enumerate(torch.arange(q.shape[1]).tensor_split(6)) for _ in part
    ):
        places = places_along(WAYS[group], sides)
        seen = (places[:, None] - places).abs() <= grid[1] * grid[2]
        near.append(softmaxed(q[:, head, text:], k[:, head, text:], v[:, head, text:], seen))
    return torch.cat([2 * cross[:, :, :text], cross[:, :, text:] + torch.stack(near, dim=1)], dim=2)


@pytest.mark.parametrize(
    ("grid", "text", "count"),
    [((5, 3, 4), 7, 6), ((7, 2, 3), 3, 8), ((3, 2, 2), 5, 2), ((20, 8, 9), 300, 6)],
)
def test_it_is_what_masks_over_all_pairs_give(grid: tuple[int, int, int], text: int, count: int) -> None:
    """Uneven sides; heads that do not divide by six, and fewer than six; several chunks and an interval of 1 and 2."""
    given = heads(count, text + grid[0] * grid[1] * grid[2])
    made = SlidingWindow(grid, text)(*given, Sdpa())
    assert torch.allclose(made, directly(*given, grid, text), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("text", "interval"), [(24, 13), (1023, 13104), (1024, 1), (2000, 1)])
def test_text_leaves_less_room_for_the_sample(text: int, interval: int) -> None:
    assert SlidingWindow((13, 24, 42), text).interval == interval


def test_a_frame_alone_is_all_near() -> None:
    q, k, v = heads(6, 4 + 12)
    made, whole = SlidingWindow((1, 3, 4), 4)(q, k, v, Sdpa()), F.scaled_dot_product_attention(q, k, v)
    video = F.scaled_dot_product_attention(q[:, :, 4:], k[:, :, 4:], v[:, :, 4:])
    assert torch.allclose(made[:, :, :4], 2 * whole[:, :, :4])
    assert torch.allclose(made[:, :, 4:], whole[:, :, 4:] + video)


def forward(model: MMDiT) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(1, 16, 5, 4, 6, generator=generator), torch.randn(1, 7, 32, generator=generator)
    made: Tensor = model(latents, torch.tensor([500.0]), text)
    return made


def test_a_model_runs_with_it_and_learns() -> None:
    plain = MMDiT(**TRANSFORMER_CONFIG).eval()
    model = MMDiT(**TRANSFORMER_CONFIG, swa_layers=[0]).eval()
    model.load_state_dict(plain.state_dict(), strict=True)
    with torch.no_grad():
        made = forward(model)
        assert torch.equal(made, forward(model))
        assert not torch.allclose(made, forward(plain), atol=1e-4)
    forward(model).square().mean().backward()
    gradients = [p.grad for p in model.transformer_blocks[0].attn1.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in gradients)
    model.enable_gradient_checkpointing()
    assert torch.allclose(forward(model.train()), made, atol=1e-6)


def test_a_block_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="'swa_layers' name the block '2', and there are 2"):
        MMDiT(**TRANSFORMER_CONFIG, swa_layers=[0, 2])


def test_a_checkpoint_says_so_in_its_config(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "weights")
    said = ["--model", "v5.1-7b", "--weights", str(weights), "--size", "128x128", "--frames", "5", "--steps", "1"]

    def generated(name: str) -> Tensor:
        assert run(["generate", "a lake", *said, "--seed", "1", "-o", str(tmp_path / name)]) == 0
        return torch.from_numpy(read_video(str(tmp_path / name))[0].copy())

    plain, path = generated("plain.mp4"), weights / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "swa_layers": [0]}), encoding="utf-8")
    assert not torch.equal(generated("windows.mp4"), plain)
    with pytest.raises(ConfigError, match="'swa_layers': \\[0\\]"):
        convert_checkpoint(weights, tmp_path / "ported", "diffusers")
