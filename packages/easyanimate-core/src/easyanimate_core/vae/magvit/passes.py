"""One pass over time: what a convolution sees before and after a run of frames, and which frames are doubled.

A layer does not know in which scheme it works. It is handed the pass, and asks it to convolve and to stretch; whatever
has to be remembered between runs is in the pass and goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CausalPass", "CentredPass", "TimePass", "rejoin"]

# Pixels of a frame times frames that a stage of a streamed pass takes at once. More does not make the convolutions any
# faster; it only makes their inputs larger.
_AT_ONCE: Final = 1 << 16


class TimePass(Protocol):
    """How layers treat time in one pass over one clip, or over a tile of it."""

    def convolve(self, conv: nn.Conv3d, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T / stride, H', W')` by a convolution with three taps along time."""
        ...

    def stretch(self, layer: nn.Module, x: Tensor, double: Callable[[Tensor], Tensor]) -> Tensor:
        """Frames `(B, C, T, H, W)`, doubled by `double` where the pass doubles them.

        Args:
            layer: who asks; a pass may treat a layer's first frame in its own way.
            x: the frames.
            double: `(B, C, T, H, W)` to `(B, C, 2·T, H, W)`.
        """
        ...

    def pieces(self, x: Tensor) -> Sequence[Tensor]:
        """The frames in the pieces in which the next stage may take them one after the other."""
        ...


class CausalPass:
    """No look at the future. Before the first frame of a clip are copies of it.

    Args:
        lone_first: the first frame of the clip is not doubled.
        remember: further runs follow, each of which continues the one before. Without it there is one run.
        split: a stage may take a run piece by piece: norms look at single frames.
    """

    def __init__(self, *, lone_first: bool = True, remember: bool = True, split: bool = False) -> None:
        self._lone_first = lone_first
        self._remember = remember
        self._split = remember and split
        self._memory: dict[nn.Module, Tensor] = {}
        self._stretched: set[nn.Module] = set()

    def convolve(self, conv: nn.Conv3d, x: Tensor) -> Tensor:
        """Continues with the frames that this layer saw last, or starts with copies of the first."""
        # With stride 2 the last window of a run ends on its last frame, so the next window needs one old frame.
        past = 2 if conv.stride[0] == 1 else 1
        before = self._memory.pop(conv, None)
        if before is None and x.shape[2] == 1:
            if self._remember:
                self._memory[conv] = x.expand(-1, -1, past, -1, -1)
            # Three copies of one frame: the taps add up, which is a third of the work.
            return _flat(conv, x, conv.weight.sum(2))
        joined = torch.cat([x[:, :, :1].expand(-1, -1, 2, -1, -1) if before is None else before, x], dim=2)
        del before
        if self._remember:
            # A copy: a view would keep all of `joined`.
            self._memory[conv] = joined[:, :, -past:].clone(memory_format=torch.preserve_format)
        return F.conv3d(joined, conv.weight, conv.bias, conv.stride, (0, *_sides(conv)))

    def stretch(self, layer: nn.Module, x: Tensor, double: Callable[[Tensor], Tensor]) -> Tensor:
        """All frames are doubled, except perhaps the first of the clip."""
        if not self._lone_first or layer in self._stretched:
            return double(x)
        if self._remember:
            self._stretched.add(layer)
        return x if x.shape[2] == 1 else torch.cat([x[:, :, :1], double(x[:, :, 1:])], dim=2)

    def pieces(self, x: Tensor) -> Sequence[Tensor]:
        """Large frames one or a few at a time, which bounds what a stage needs; results are the same."""
        return x.split(max(_AT_ONCE // (x.shape[3] * x.shape[4]), 1), dim=2) if self._split else (x,)


class CentredPass:
    """A run by itself: one frame of zeros before it and one behind.

    Args:
        lone: the run is a single frame that stays single.
    """

    def __init__(self, *, lone: bool = False) -> None:
        self._lone = lone

    def convolve(self, conv: nn.Conv3d, x: Tensor) -> Tensor:
        """As any convolution with padding."""
        if x.shape[2] == 1:
            # Zeros on both sides: only the middle tap counts.
            return _flat(conv, x, conv.weight[:, :, 1])
        return F.conv3d(x, conv.weight, conv.bias, conv.stride, (1, *_sides(conv)))

    def stretch(self, layer: nn.Module, x: Tensor, double: Callable[[Tensor], Tensor]) -> Tensor:
        """All frames are doubled, or none."""
        return x if self._lone else double(x)

    def pieces(self, x: Tensor) -> Sequence[Tensor]:
        """The whole run: its norms look at all frames."""
        return (x,)


def rejoin(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces `(B, C, T, H, W)` along time as one; a single one is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim=2)


def _sides(conv: nn.Conv3d) -> tuple[int, int]:
    """Zeros around each frame."""
    return int(conv.padding[1]), int(conv.padding[2])


def _flat(conv: nn.Conv3d, x: Tensor, weight: Tensor) -> Tensor:
    """One frame `(B, C, 1, H, W)` by a two-dimensional kernel."""
    return F.conv2d(x[:, :, 0], weight, conv.bias, conv.stride[1:], _sides(conv))[:, :, None]
