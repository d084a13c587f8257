"""Convolutions over time and space, and the layers that halve and double both."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from easyanimate_core.kernels.op import onednn
from easyanimate_core.vae.magvit.passes import TimePass

__all__ = ["CausalConv3d", "DoublingConv3d", "Downsampler", "Upsampler"]


class CausalConv3d(nn.Conv3d):
    """3×3×3 convolution; space is padded with zeros by `spatial_padding`, time as the pass says."""

    def __init__(
        self, channels: int, out_channels: int, *, stride: tuple[int, int, int] = (1, 1, 1), spatial_padding: int = 1
    ) -> None:
        super().__init__(channels, out_channels, 3, stride=stride, padding=(0, spatial_padding, spatial_padding))

    def over(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T / stride, H', W')`, as part of a pass."""
        return time.convolve(self, x)

    def slide(self, frames: Tensor, kernel: Tensor, *, around: int = 0, biased: bool = True) -> Tensor:
        """`(B, C, T, H, W)` by a kernel that the pass has made of the weight, with `k` taps along time.

        Args:
            frames: with those that the first and the last window need.
            kernel: `(C', C, k, 3, 3)`.
            around: frames of zeros before and behind.
            biased: whether the bias is added.

        Returns:
            `(B, C', (T + 2·around − k) / stride + 1, H', W')`.
        """
        bias, padding = self.bias if biased else None, (around, int(self.padding[1]), int(self.padding[2]))
        if kernel.shape[2] == frames.shape[2] == 1:
            return _convolved(frames[:, :, 0], kernel[:, :, 0], bias, self.stride[1:], padding[1:])[:, :, None]
        return _convolved(frames, kernel, bias, self.stride, padding)


class DoublingConv3d(CausalConv3d):
    """3×3×3 convolution of frames of double height and width, which are never made.

    Enlarged by repetition, two of three neighbouring lines are the same line of the small frame, so their taps add up:
    two taps along each side instead of three, others for even than for odd lines. Four convolutions of the small frames
    with 3×2×2 taps give the four kinds of pixels, with 12 products for each instead of 27.
    """

    def slide(self, frames: Tensor, kernel: Tensor, *, around: int = 0, biased: bool = True) -> Tensor:
        """As its parent, of the enlarged frames: `(B, C, T, H, W)` to `(B, C', T', 2·H, 2·W)`."""
        b, _, _, h, w = frames.shape
        big = None
        for i, j, taps in _kinds(kernel):
            kind = super().slide(frames, taps, around=around, biased=biased)
            if big is None:
                big = _empty(kind, (b, kind.shape[1], kind.shape[2], 2 * h, 2 * w))
            # Zeros are put on both sides, and each kind of pixel needs them on one.
            big[..., i::2, j::2] = kind[..., i : i + h, j : j + w]
        assert big is not None
        return big


class Downsampler(nn.Module):
    """Halves height and width, and time if asked; pads only right and bottom."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=(2 if temporal else 1, 2, 2), spatial_padding=0)

    def forward(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to half the size."""
        return self.conv.over(F.pad(x, (0, 1, 0, 1)), time)


class Upsampler(nn.Module):
    """Doubles height and width, by repetition before the convolution.

    Args:
        channels: in and out.
        smooth: afterwards time is doubled, too, by new frames between their neighbours. (Where frames are repeated
            instead, the next stage does it, which can save work there.)
    """

    def __init__(self, channels: int, *, smooth: bool) -> None:
        super().__init__()
        self.conv = DoublingConv3d(channels, channels)
        self.smooth = smooth

    def forward(self, x: Tensor, time: TimePass) -> Tensor:
        """`(B, C, T, H, W)` to double the size; the pass says which frames are doubled."""
        x = self.conv.over(x, time)
        return time.stretch(self, x, _between) if self.smooth else x


_between = partial(F.interpolate, scale_factor=(2, 1, 1), mode="trilinear", align_corners=False)


def _kinds(kernel: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Row and column, 0 if even and 1 if odd, and the `(C', C, k, 2, 2)` taps there, made of `(C', C, k, 3, 3)`."""
    # Sums of small types are rounded once.
    exact = kernel.float() if kernel.dtype.itemsize < 4 else kernel
    for i, rows in enumerate(_halved(exact, 3)):
        for j, taps in enumerate(_halved(rows, 4)):
            yield i, j, taps.to(kernel.dtype, memory_format=_format(kernel))


def _halved(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Two taps along `dim` of three, for even and for odd lines: those that meet the same line add up."""
    before, here, after = kernel.unbind(dim)
    return torch.stack((before, here + after), dim), torch.stack((before + here, after), dim)


def _format(x: Tensor) -> torch.memory_format:
    last = torch.channels_last_3d
    return last if x.is_contiguous(memory_format=last) and not x.is_contiguous() else torch.contiguous_format


def _empty(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=_format(like))


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """`F.conv3d`, or `F.conv2d` of `(B, C, H, W)`."""
    # On a CPU, torch takes its own loop when the input is small, by a rule made for pictures. With three dimensions
    # oneDNN is 3 to 14 times faster there, so it is called by its name.
    if onednn(x, weight):
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, (1,) * len(stride), 1)
    return (F.conv3d if x.ndim == 5 else F.conv2d)(x, weight, bias, stride, padding)
