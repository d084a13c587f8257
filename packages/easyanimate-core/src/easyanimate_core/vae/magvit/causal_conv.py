"""Convolution along time without a look at the future, in one pass or chunk by chunk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CausalConv3d", "Downsampler", "TimeStream", "Upsampler"]


class TimeStream:
    """One pass over time: what each convolution still remembers of earlier chunks.

    A pass may be one chunk (the whole clip) or many; the result is the same. The stream is made by whoever
    drives the pass and handed through the layers, so that no layer keeps anything between passes.
    """

    def __init__(self) -> None:
        self.first = True
        self._memory: dict[nn.Module, Tensor] = {}

    def extended(self, layer: nn.Module, x: Tensor, past: int) -> Tensor:
        """`x (B, C, T, H, W)` with the frames before it: copies of its first frame, or remembered ones.

        Args:
            layer: the convolution whose memory it is.
            x: the new frames.
            past: how many remembered frames the layer needs (one fewer with temporal stride).
        """
        if self.first:
            joined = torch.cat([x[:, :, :1].expand(-1, -1, 2, -1, -1), x], dim=2)
        else:
            joined = torch.cat([self._memory[layer][:, :, -past:], x], dim=2)
        self._memory[layer] = joined[:, :, -2:]
        return joined

    def advance(self) -> None:
        """The chunk is done; the next one continues it."""
        self.first = False


class CausalConv3d(nn.Conv3d):
    """3×3×3 convolution; time is padded on the left only, space with zeros by `spatial_padding`."""

    def __init__(
        self, channels: int, out_channels: int, *, stride: tuple[int, int, int] = (1, 1, 1), spatial_padding: int = 1
    ) -> None:
        super().__init__(channels, out_channels, 3, stride=stride, padding=(0, spatial_padding, spatial_padding))

    def causal(self, x: Tensor, stream: TimeStream) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T / stride, H', W')`, continuing the stream."""
        # With stride 2 the last window of a chunk ends on its last frame, so the next window needs one old frame.
        joined = stream.extended(self, x, past=2 if self.stride[0] == 1 else 1)
        if stream.first and x.shape[2] == 1:
            # Three copies of one frame: the taps add up, which is a third of the work.
            weight = self.weight.sum(2)
            frame = F.conv2d(x[:, :, 0], weight, self.bias, self.stride[1:], self.padding[1:])
            return frame[:, :, None]
        out: Tensor = self(joined)
        return out


class Downsampler(nn.Module):
    """Halves height and width, and time if asked; pads only right and bottom."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=(2 if temporal else 1, 2, 2), spatial_padding=0)

    def forward(self, x: Tensor, stream: TimeStream) -> Tensor:
        """`(B, C, T, H, W)` to half the size."""
        return self.conv.causal(F.pad(x, (0, 1, 0, 1)), stream)


class Upsampler(nn.Module):
    """Doubles height and width, and time if asked: frames are repeated after the convolution."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels)
        self.temporal = temporal

    def forward(self, x: Tensor, stream: TimeStream) -> Tensor:
        """`(B, C, T, H, W)` to double the size; the first frame of a clip stays single."""
        x = F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest")
        x = self.conv.causal(x, stream)
        if not self.temporal:
            return x
        if stream.first:
            return torch.cat([x[:, :, :1], x[:, :, 1:].repeat_interleave(2, dim=2)], dim=2)
        return x.repeat_interleave(2, dim=2)
