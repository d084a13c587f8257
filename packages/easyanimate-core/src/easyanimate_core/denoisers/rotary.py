"""Rotary position tables on the resized crop of a base grid.

The grid of a clip is laid into the grid that the model was trained with (45 × 30 patches for 720 × 480
pixels), keeping its aspect ratio and centring it, so every size sees familiar positions. Source: the
released models; the formula is endpoint-free, `start + (stop − start)·i/n`. Some ports use `linspace` to
`stop·(n−1)/n` instead, which differs as soon as the crop does not start at zero.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["apply_rotary", "crop_region", "rotary_2d", "rotary_3d"]

_Corner = tuple[int, int]


def crop_region(grid: tuple[int, int], base: tuple[int, int]) -> tuple[_Corner, _Corner]:
    """Where a `(rows, columns)` grid lies in a base grid of `(rows, columns)`.

    Returns:
        `((top, left), (bottom, right))`, rounded half to even as Python does.
    """
    rows, columns = grid
    base_rows, base_columns = base
    if rows / columns > base_rows / base_columns:
        height, width = base_rows, round(base_rows / rows * columns)
    else:
        height, width = round(base_columns / columns * rows), base_columns
    top, left = round((base_rows - height) / 2), round((base_columns - width) / 2)
    return (top, left), (top + height, left + width)


def _axis(positions: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Cos and sin `(n, dim)` of one axis, each frequency twice: pairs are (even, odd)."""
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.outer(positions.double(), frequency).float()
    return angle.cos().repeat_interleave(2, 1), angle.sin().repeat_interleave(2, 1)


def _crop_positions(grid: tuple[int, int], base: tuple[int, int]) -> tuple[Tensor, Tensor]:
    start, stop = crop_region(grid, base)
    rows, columns = (
        first + (last - first) * torch.arange(n, dtype=torch.float64) / n
        for first, last, n in zip(start, stop, grid, strict=True)
    )
    return rows, columns


@lru_cache(maxsize=16)
def rotary_3d(
    head_dim: int, grid: tuple[int, int, int], base: tuple[int, int] = (30, 45), device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Table for video tokens in frame-major order.

    Args:
        head_dim: width of one head; frames take a quarter, rows and columns three eighths each.
        grid: `(frames, rows, columns)` in patches.
        base: `(rows, columns)` of the training grid.
        device: where the table is wanted. The same arguments give the same tensors.

    Returns:
        cos and sin, float32, each `(frames·rows·columns, head_dim)`.
    """
    frames, rows, columns = grid
    by_row, by_column = _crop_positions((rows, columns), base)
    parts = [
        _axis(torch.arange(frames), head_dim // 4),
        _axis(by_row, head_dim // 8 * 3),
        _axis(by_column, head_dim // 8 * 3),
    ]
    tables = []
    for time, row, column in zip(*parts, strict=True):
        table = torch.cat(
            [
                time[:, None, None].expand(-1, rows, columns, -1),
                row[None, :, None].expand(frames, -1, columns, -1),
                column[None, None].expand(frames, rows, -1, -1),
            ],
            dim=-1,
        )
        tables.append(table.reshape(frames * rows * columns, head_dim).to(device))
    return tables[0], tables[1]


@lru_cache(maxsize=16)
def rotary_2d(
    head_dim: int, grid: tuple[int, int], base: tuple[int, int] = (32, 32), device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Table for the tokens of one picture; columns take the first half of the head, rows the second.

    Returns:
        cos and sin, float32, each `(rows·columns, head_dim)`.
    """
    rows, columns = grid
    by_row, by_column = _crop_positions(grid, base)
    tables = []
    for row, column in zip(_axis(by_row, head_dim // 2), _axis(by_column, head_dim // 2), strict=True):
        table = torch.cat([column[None].expand(rows, -1, -1), row[:, None].expand(-1, columns, -1)], dim=-1)
        tables.append(table.reshape(rows * columns, head_dim).to(device))
    return tables[0], tables[1]


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (even, odd) of `(B, N, S, head_dim)` by tables `(S, head_dim)`, in float32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (x.float() * cos + turned * sin).to(x.dtype)
