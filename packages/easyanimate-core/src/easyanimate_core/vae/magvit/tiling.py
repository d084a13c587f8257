"""Spatial tiles with blended overlaps, for frames too large to take at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor

__all__ = ["TileGrid", "blend_corner", "by_tiles", "join"]

_Tile = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class TileGrid:
    """How one plane is cut and put together again.

    Attributes:
        size: side of an input tile.
        stride: distance of input tiles.
        blend: overlap of output tiles that is cross-faded.
        keep: rows and columns of each output tile that remain.
    """

    size: int
    stride: int
    blend: int
    keep: int

    def rows(self, height: int, width: int) -> list[list[_Tile]]:
        """Input tiles by rows; the last ones may be shorter."""
        return [
            [(slice(i, i + self.size), slice(j, j + self.size)) for j in range(0, width, self.stride)]
            for i in range(0, height, self.stride)
        ]


def by_tiles(plane: Tensor, grid: TileGrid, code: Callable[[Tensor], Tensor], together: int) -> list[list[Tensor]]:
    """What `code` makes of each tile of `plane (B, …, H, W)`, by rows.

    Args:
        plane: samples of a batch stay together.
        grid: how to cut.
        code: `(B', …)` to the same number of samples.
        together: tiles of one size that are given to `code` as one batch.
    """
    done = []
    for row in grid.rows(*plane.shape[-2:]):
        sizes = groupby((plane[..., y, x] for y, x in row), key=lambda tile: tile.shape)
        batches = [batch for _, tiles in sizes for batch in _batched(tiles, together)]
        done.append([tile for batch in batches for tile in code(torch.cat(batch)).chunk(len(batch))])
    return done


def _fade(before: Tensor, after: Tensor, extent: int, dim: int) -> Tensor:
    """`after`, whose first `extent` lines along `dim` are faded in over the last lines of `before`."""
    n = min(extent, before.shape[dim], after.shape[dim])
    shape = [1] * after.ndim
    shape[dim] = n
    weight = (torch.arange(n, dtype=after.dtype, device=after.device) / n).view(shape)
    old = before.narrow(dim, before.shape[dim] - n, n)
    new = after.narrow(dim, 0, n)
    rest = after.narrow(dim, n, after.shape[dim] - n)
    return torch.cat([old * (1 - weight) + new * weight, rest], dim=dim)


def join(rows: list[list[Tensor]], grid: TileGrid) -> Tensor:
    """Blend every tile with the one above, then with the one to the left, and put the kept parts together."""
    blended: list[list[Tensor]] = []
    for i, row in enumerate(rows):
        done: list[Tensor] = []
        for j, tile in enumerate(row):
            if i > 0:
                tile = _fade(blended[i - 1][j], tile, grid.blend, -2)
            if j > 0:
                tile = _fade(done[j - 1], tile, grid.blend, -1)
            done.append(tile)
        blended.append(done)
    return torch.cat([torch.cat([t[..., : grid.keep, : grid.keep] for t in row], -1) for row in blended], -2)


def blend_corner(whole: Tensor, corner: Tensor) -> Tensor:
    """`whole` with its lower right part faded into `corner`, which was decoded in one piece."""
    h, w = corner.shape[-2:]
    weight = torch.minimum(
        torch.linspace(0, 1, w, device=whole.device)[None].expand(h, -1),
        torch.linspace(0, 1, h, device=whole.device)[:, None].expand(-1, w),
    )
    result = whole.clone()
    result[..., -h:, -w:] = (weight * corner + (1 - weight) * whole[..., -h:, -w:]).to(whole.dtype)
    return result


def _batched(items: Iterable[Tensor], size: int) -> Iterator[tuple[Tensor, ...]]:
    """`size` at a time; the last ones may be fewer. (`itertools.batched` needs Python 3.12.)"""
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch
