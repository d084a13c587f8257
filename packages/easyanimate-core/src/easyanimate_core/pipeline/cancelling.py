"""Cancel inside a network: between its blocks, and with them between the tiles of a VAE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from easyanimate_core.interfaces import Toolbox

__all__ = ["cancellable"]


@contextmanager
def cancellable(toolbox: Toolbox) -> Iterator[None]:
    """Inside, every block of the toolbox's modules asks its cancel token before it runs.

    Blocks are what a module keeps in a `ModuleList`: transformer blocks, layers of a text encoder, and the stages of
    a VAE, which run once per tile and chunk. The networks themselves need not know of tokens. What is inside of a block
    stays as it is: a layer with a hook would be called where its weights could be read.
    """

    def check(module: nn.Module, given: tuple[Any, ...]) -> None:
        toolbox.cancel.check()

    networks = [module for module in toolbox.modules().values() if isinstance(module, nn.Module)]
    hooks = [block.register_forward_pre_hook(check) for network in networks for block in _blocks(network)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What the topmost lists hold."""
    if isinstance(module, nn.ModuleList):
        yield from module
    else:
        for part in module.children():
            yield from _blocks(part)
