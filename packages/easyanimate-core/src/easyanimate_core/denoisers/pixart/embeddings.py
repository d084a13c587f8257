"""What the blocks are told besides tokens: places, time, sizes, text and pictures."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from easyanimate_core.denoisers.layers import Timestep

__all__ = ["AdaLayerNormSingle", "PatchEmbed", "Projection", "place_table"]

_SINUSOID = 256


@lru_cache(maxsize=16)
def place_table(width: int, grid: tuple[int, int], base: int, scale: float, device: str = "cpu") -> Tensor:
    """Sines and cosines of the places of one frame; a grid of any size is stretched over `base × base` places.

    Args:
        width: of the tokens; the first half tells the column, the second the row, sines before cosines.
        grid: `(rows, columns)` in patches.
        base: side of the grid that the model was trained with, in patches.
        scale: places are divided by it; above 1 in models for large pictures.
        device: where the table is wanted. The same arguments give the same tensor.

    Returns:
        `(rows·columns, width)` float32.
    """
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    axes = []
    for length in grid:
        angle = torch.outer(torch.arange(length, dtype=torch.float64) * base / length / scale, frequency)
        axes.append(torch.cat([angle.sin(), angle.cos()], dim=-1))
    rows, columns = axes
    table = torch.cat([columns.expand(grid[0], -1, -1), rows[:, None].expand(-1, grid[1], -1)], dim=-1)
    return table.flatten(0, 1).float().to(device)


class PatchEmbed(nn.Module):
    """Frames to tokens, each with its place."""

    def __init__(self, channels: int, width: int, patch: int, sample_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)
        self.base = sample_size // patch
        self.scale = float(max(sample_size // 64, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """`(B, C, f, h, w)` to tokens `(B, S, D)`, frame-major, and the grid `(f, h/p, w/p)`."""
        patches = self.proj(x.transpose(1, 2).flatten(0, 1))
        rows, columns = patches.shape[-2:]
        table = place_table(patches.shape[1], (rows, columns), self.base, self.scale, str(x.device))
        placed = (patches.flatten(2).transpose(1, 2) + table).to(patches.dtype)
        return placed.unflatten(0, (x.shape[0], -1)).flatten(1, 2), (x.shape[2], rows, columns)


class Projection(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(given, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, given)` to `(…, width)`."""
        y: Tensor = self.linear_2(F.gelu(self.linear_1(x), approximate="tanh"))
        return y


class _TimeAndSize(nn.Module):
    """Time, and in models for many sizes also the picture's size and shape, as one vector."""

    def __init__(self, width: int, *, sized: bool) -> None:
        super().__init__()
        self.timestep_embedder = Timestep(_SINUSOID, width)
        self.resolution_embedder = Timestep(_SINUSOID, width // 3) if sized else None
        self.aspect_ratio_embedder = Timestep(_SINUSOID, width // 3) if sized else None

    def forward(self, timestep: Tensor, size: Tensor, dtype: torch.dtype) -> Tensor:
        time: Tensor = self.timestep_embedder(timestep, dtype)
        if self.resolution_embedder is None or self.aspect_ratio_embedder is None:
            return time
        resolution = self.resolution_embedder(size.flatten(), dtype).unflatten(0, (-1, 2)).flatten(1)
        # Rounding to the loop's dtype is part of how released models were sampled.
        ratio = self.aspect_ratio_embedder((size[:, 0] / size[:, 1]).to(dtype), dtype)
        return time + torch.cat([resolution, ratio], dim=1)


class AdaLayerNormSingle(nn.Module):
    """One shift, scale and gate for all blocks, which add a table of their own. Chen et al., "PixArt-α", section 2.3.

    Args:
        width: of the tokens; a multiple of 3 when `sized`.
        sized: whether the picture's size is a condition.
    """

    def __init__(self, width: int, *, sized: bool) -> None:
        super().__init__()
        self.emb = _TimeAndSize(width, sized=sized)
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, timestep: Tensor, size: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Times `(B,)` and sizes `(B, 2)` to the modulation `(B, 6, D)` and the embedding `(B, D)` itself."""
        embedded = self.emb(timestep, size, dtype)
        return self.linear(F.silu(embedded)).unflatten(-1, (6, -1)), embedded
