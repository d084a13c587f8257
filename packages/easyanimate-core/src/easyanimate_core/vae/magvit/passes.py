"""One pass over time: what a convolution sees before and after a run of frames, and which frames are doubled.

A layer does not know in which scheme it works. It is handed the pass, and asks it to convolve and to stretch; whatever
has to be remembered between runs is in the pass and goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import torch
from torch import Tensor, nn

__all__ = ["CausalPass", "CentredPass", "Sliding", "TimePass", "rejoin", "repeated"]

# Pixels of a frame times frames that a stage of a streamed pass takes at once. More does not make the convolutions any
# faster; it only makes their inputs larger.
_AT_ONCE: Final = 1 << 16


class Sliding(Protocol):
    """A convolution with three taps along time. A pass decides on frames and taps; the layer itself knows of space."""

    weight: Tensor
    stride: tuple[int, ...]

    def slide(self, frames: Tensor, kernel: Tensor, *, around: int = 0, biased: bool = True) -> Tensor:
        """See `causal_conv.CausalConv3d.slide`."""
        ...


class TimePass(Protocol):
    """How layers treat time in one pass over one clip, or over a tile of it."""

    def convolve(self, conv: Sliding, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T / stride, H', W')`."""
        ...

    def convolve_repeated(self, conv: Sliding, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', 2·T, H', W')`: as `convolve` after `stretch` by `repeated`, with stride 1."""
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
        self._memory: dict[Sliding, Tensor] = {}
        self._stretched: set[nn.Module] = set()

    def convolve(self, conv: Sliding, x: Tensor) -> Tensor:
        """Continues with the frames that this layer saw last, or starts with copies of the first."""
        # With stride 2 the last window of a run ends on its last frame, so the next window needs one old frame.
        past = 2 if conv.stride[0] == 1 else 1
        before = self._memory.pop(conv, None)
        if before is None and x.shape[2] == 1:
            if self._remember:
                self._memory[conv] = x.expand(-1, -1, past, -1, -1)
            return _still(conv, x)
        joined = torch.cat([x[:, :, :1].expand(-1, -1, 2, -1, -1) if before is None else before, x], dim=2)
        del before
        if self._remember:
            # A copy: a view would keep all of `joined`.
            self._memory[conv] = joined[:, :, -past:].clone(memory_format=torch.preserve_format)
        return conv.slide(joined, conv.weight)

    def convolve_repeated(self, conv: Sliding, x: Tensor) -> Tensor:
        """Half the work of `convolve`. Pairs `A A P P`: the second `P` is behind `A` and `P`, so two of the three taps
        add up; the first `P` is behind `A` and `A`, which differs from that only under the middle tap."""
        before = self._memory.pop(conv, None)
        lone = self._lone_first and before is None
        if self._remember:
            self._memory[conv] = x[:, :, -1:].clone(memory_format=torch.preserve_format)
        if lone and x.shape[2] == 1:
            return _still(conv, x)
        # Before the first frame are copies of it, which is a pair, too.
        joined = torch.cat([x[:, :, :1] if before is None else before, x], dim=2)
        first, middle, last = conv.weight.unbind(2)
        made = repeated(conv.slide(joined, torch.stack([first, middle + last], dim=2)))
        made[:, :, ::2] += conv.slide(joined[:, :, :-1] - x, middle[:, :, None], biased=False)
        return made[:, :, 1:] if lone else made

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

    def convolve(self, conv: Sliding, x: Tensor) -> Tensor:
        """As any convolution with padding."""
        if x.shape[2] == 1:
            # Zeros on both sides: only the middle tap counts.
            return conv.slide(x, conv.weight[:, :, 1:2])
        return conv.slide(x, conv.weight, around=1)

    def convolve_repeated(self, conv: Sliding, x: Tensor) -> Tensor:
        """No release needs it, so nothing is saved."""
        return self.convolve(conv, x if self._lone else repeated(x))

    def stretch(self, layer: nn.Module, x: Tensor, double: Callable[[Tensor], Tensor]) -> Tensor:
        """All frames are doubled, or none."""
        return x if self._lone else double(x)

    def pieces(self, x: Tensor) -> Sequence[Tensor]:
        """The whole run: its norms look at all frames."""
        return (x,)


def rejoin(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces `(B, C, T, H, W)` along time as one; a single one is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim=2)


def _still(conv: Sliding, x: Tensor) -> Tensor:
    """One frame behind copies of it: the taps add up, which is a third of the work."""
    return conv.slide(x, conv.weight.sum(2, keepdim=True))


def repeated(x: Tensor) -> Tensor:
    """Every frame of `(B, C, T, H, W)` twice."""
    return x.repeat_interleave(2, dim=2)
