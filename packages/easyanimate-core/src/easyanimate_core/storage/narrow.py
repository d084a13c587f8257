"""Storages of one byte per weight: `float8` and `int8`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from easyanimate_core.errors import InvalidOptions
from easyanimate_core.placing import Keep
from easyanimate_core.storage.linear import StoredLinear, in_memory, keep_narrow, replace_linears
from easyanimate_core.storage.options import Float8Options, Int8Options

__all__ = ["Float8", "Int8"]

_EXCLUDED = "embed_tokens"


class Int8:
    """Linear layers as int8 with one scale per output: half the memory of bfloat16, off by about 1 %."""

    def __init__(self, options: Int8Options | None = None) -> None:
        self.options = options or Int8Options()

    def store(self, role: str, module: Any) -> None:
        """Replace the component's linear layers; see `placing.Storage`."""
        self.store_by_layer(role, module, in_memory)

    def store_by_layer(self, role: str, module: Any, keep: Keep) -> None:
        """The same, one layer after the other; see `placing.StoresByLayer`."""
        if _meant(self.options.only, role, module):
            replace_linears(module, torch.int8, keep=keep)


class Float8:
    """Linear layers as float8 (e4m3): half the memory of bfloat16, an error of about 2 % per weight.

    By default norms, biases, convolutions and embeddings stay as they are, and every output has a scale. With
    `everything` and without `scaled` all parameters are cast as they are, as the original's `qfloat8` modes do.
    """

    def __init__(self, options: Float8Options | None = None) -> None:
        self.options = options or Float8Options()

    def store(self, role: str, module: Any) -> None:
        """Replace the component's linear layers, and narrow all others when `everything` is kept so.

        Raises:
            InvalidOptions: everything is to be narrow, and a parameter belongs to no layer that is called.
        """
        self.store_by_layer(role, module, in_memory)

    def store_by_layer(self, role: str, module: Any, keep: Keep) -> None:
        """The same, one layer after the other; see `placing.StoresByLayer`."""
        options = self.options
        if not _meant(options.only, role, module):
            return
        if options.everything:
            _check_owned(module)
        narrow = torch.float8_e4m3fn
        replace_linears(module, narrow, scaled=options.scaled, narrow_bias=options.everything, keep=keep)
        if options.everything:
            for _, layer in _other_layers(module):
                keep_narrow(layer, narrow, keep)


def _meant(only: Sequence[str], role: str, module: Any) -> bool:
    """Whether a component is one of those that are kept in a narrow type."""
    return isinstance(module, nn.Module) and (role in only or type(module).__name__ in only)


def _other_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers with floating parameters of their own, without linear ones and without token embeddings."""
    for path, layer in module.named_modules():
        own = any(parameter.is_floating_point() for parameter in layer.parameters(recurse=False))
        if own and _EXCLUDED not in path and not isinstance(layer, nn.Linear | StoredLinear):
            yield path, layer


def _check_owned(module: nn.Module) -> None:
    """Refuse parameters that are read without a call of their layer: nobody would widen them."""
    for path, layer in _other_layers(module):
        if next(layer.children(), None) is not None:
            name = next(name for name, _ in layer.named_parameters(recurse=False))
            full = f"{path}.{name}".lstrip(".")
            raise InvalidOptions(
                f"'{type(module).__name__}' cannot be kept in float8 whole: '{full}' belongs to no layer of its own",
                "Leave 'everything' out (--offload model --storage float8): only linear layers are kept so.",
            )
