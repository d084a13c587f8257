"""What all writers of tiny checkpoints need: weights that repeat, none of them idle, in a dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["cast", "seeded", "stirred"]


def cast(state_dict: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors in another dtype."""
    return {name: tensor.to(dtype) for name, tensor in state_dict.items()}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's global generator is seeded; afterwards it goes on as if nothing had happened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def stirred(module: nn.Module) -> dict[str, Tensor]:
    """A fresh module's weights, with small random values for matrices that begin as zeros: no part of it is idle."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.05)
    return module.state_dict()
