"""Sliding-window attention: near tokens along six ways through the video, and a sparse sample of all the others.

An option of the original's code (`swa_layers` of a config) that no release uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from easyanimate_core.interfaces import AttentionBackend

__all__ = ["SlidingWindow"]

# In which order each group of heads walks through frames (0), rows (1) and columns (2); the last changes fastest.
_WAYS: Final = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
# Text and sampled video together are about as many tokens as this.
_SEEN: Final = 1024
# Queries of one call. It bounds the mask's size and changes no result.
_ROWS: Final = 1024


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """What a block with `swa_layers` does instead of attention over all tokens.

    Heads are cut in six groups. Each lays the video's tokens out along a way of its own, and there a token attends to
    those at most h·w places away. To that is added attention of every token to the text and to every n-th token of the
    video, with a softmax of its own. The text, which has no place along the ways, gets the second part twice, as in the
    original.

    Attributes:
        grid: `(f, h, w)` of the video in patches, `S = f·h·w`.
        text: L, how many tokens of text stand before those of the video.
    """

    grid: tuple[int, int, int]
    text: int

    @property
    def reach(self) -> int:
        """How far away along its way a token sees: as many places as a frame has."""
        return self.grid[1] * self.grid[2]

    @property
    def interval(self) -> int:
        """Every n-th token of the video is seen by all, from the first on; each one where the text leaves no room."""
        free = _SEEN - self.text
        return max(self.grid[0] * self.reach // free, 1) if free > 0 else 1

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, backend: AttentionBackend) -> Tensor:
        """`(B, N, L + S, D)` each, of [text, video], to `(B, N, L + S, D)`.

        Args:
            q: queries, normed and turned.
            k: keys, the same.
            v: values.
            backend: attends to the text and the sample; windows need a mask in bands, which is torch's own attention.
        """
        length = self.text
        sample = (torch.cat([x[:, :, :length], x[:, :, length :: self.interval]], dim=2) for x in (k, v))
        far = backend(q, *sample)
        groups = zip(_WAYS, *(x[:, :, length:].tensor_split(len(_WAYS), dim=1) for x in (q, k, v)), strict=True)
        near = torch.cat([self._along(way, *heads) for way, *heads in groups], dim=1)
        return torch.cat([far[:, :, :length] * 2, far[:, :, length:] + near], dim=2)

    def _along(self, way: tuple[int, ...], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of heads `(B, n, S, D)` to near tokens along one way."""
        q, k, v = (self._laid(x, way) for x in (q, k, v))
        length, reach = q.shape[2], self.reach
        parts = []
        for start in range(0, length, _ROWS):
            stop = min(start + _ROWS, length)
            first, last = max(start - reach, 0), min(stop + reach, length)
            places = torch.arange(first, last, device=q.device)
            away = places[start - first : stop - first, None] - places
            near = (k[:, :, first:last], v[:, :, first:last])
            parts.append(F.scaled_dot_product_attention(q[:, :, start:stop], *near, attn_mask=away.abs() <= reach))
        walked = [self.grid[axis] for axis in way]
        back = [2 + way.index(axis) for axis in range(3)]
        placed: Tensor = torch.cat(parts, dim=2).unflatten(2, walked).permute(0, 1, *back, 5).flatten(2, 4)
        return placed

    def _laid(self, x: Tensor, way: tuple[int, ...]) -> Tensor:
        """`(B, n, S, D)`, frame by frame, in the order of a way."""
        laid: Tensor = x.unflatten(2, self.grid).permute(0, 1, *(2 + axis for axis in way), 5).flatten(2, 4)
        return laid
