"""Learnables that select existing parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidOptions
from easyanimate_train.learnables.options import FullOptions, ModulesOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from easyanimate_train.interfaces import Models

__all__ = ["Full", "Modules"]


def _select(models: Models, wanted: Callable[[str], bool], said: str) -> Mapping[str, nn.Parameter]:
    chosen = {}
    for role, module in models.roles().items():
        for name, parameter in module.named_parameters():
            full = f"{role}.{name}"
            parameter.requires_grad_(wanted(full))
            if parameter.requires_grad:
                chosen[full] = parameter
    if not chosen:
        raise InvalidOptions(
            f"no parameter matches '{said}'",
            f"This objective runs {', '.join(models.roles())}; names look like 'denoiser.proj_out.weight'.",
        )
    return chosen


class Full:
    """Every parameter of whole modules."""

    def __init__(self, options: FullOptions) -> None:
        self.options = options

    def parameters(self, models: Models) -> Mapping[str, nn.Parameter]:
        """All parameters of the chosen roles."""
        heads = tuple(f"{role}." for role in self.options.roles)
        return _select(models, lambda name: name.startswith(heads), ", ".join(self.options.roles))


class Modules:
    """Parameters whose `role.name` contains one of some strings."""

    def __init__(self, options: ModulesOptions) -> None:
        self.options = options

    def parameters(self, models: Models) -> Mapping[str, nn.Parameter]:
        """All parameters that match."""
        return _select(
            models, lambda name: any(part in name for part in self.options.names), ", ".join(self.options.names)
        )
