"""Optimisers and rates.

Muon: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). A matrix moves along its
orthogonalised momentum, so every direction moves equally far.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from diffusers.optimization import get_scheduler

if TYPE_CHECKING:
    from torch import Tensor, nn

    from easyanimate_train.config import OptimConfig

__all__ = ["Muon", "make_optimizer", "make_schedule", "orthogonalised"]


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices of `(n, rows, columns)`, approximately, by Newton-Schulz iterations.

    In bfloat16, as published: the direction need not be exact, and it is many times faster.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    x = x.transpose(1, 2) if x.shape[1] > x.shape[2] else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else x).to(matrices.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Muon for groups marked `muon`, AdamW for the others, in one optimiser.

    Args:
        groups: parameter groups with `lr`, `weight_decay`, `betas` and `muon`.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.99), "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            for p in moving:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            (self._muon if group["muon"] else self._adamw)(group, moving)

    def _muon(self, group: dict[str, Any], moving: list[nn.Parameter]) -> None:
        by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
        for p in moving:
            gradient, state = _gradient(p), self.state[p]
            momentum = state.setdefault("momentum", torch.zeros_like(p))
            momentum.lerp_(gradient, 0.05)
            flat = gradient.lerp(momentum, 0.95).flatten(1)
            by_shape.setdefault((flat.shape[0], flat.shape[1]), []).append((p, flat))
        for (rows, columns), pairs in by_shape.items():
            moves = orthogonalised(torch.stack([flat for _, flat in pairs]))
            scale = max(1.0, rows / columns) ** 0.5
            for (p, _), move in zip(pairs, moves, strict=True):
                p.add_(move.view_as(p), alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any], moving: list[nn.Parameter]) -> None:
        fast, slow = group["betas"]
        for p in moving:
            gradient, state = _gradient(p), self.state[p]
            if not state:
                state.update(count=torch.zeros(()), first=torch.zeros_like(p), second=torch.zeros_like(p))
            state["count"] += 1
            n = float(state["count"])
            state["first"].lerp_(gradient, 1 - fast)
            state["second"].lerp_(gradient**2, 1 - slow)
            spread = (state["second"] / (1 - slow**n)).sqrt_().add_(1e-8)
            p.addcdiv_(state["first"], spread, value=-group["lr"] / (1 - fast**n))


def _gradient(p: nn.Parameter) -> Tensor:
    assert p.grad is not None  # only moving parameters come here
    return p.grad


def make_optimizer(parameters: Mapping[str, nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of a recipe over parameters by name."""
    shared: dict[str, Any] = {"weight_decay": config.weight_decay, "betas": config.betas}
    if config.name == "adamw":
        return torch.optim.AdamW(list(parameters.values()), lr=config.learning_rate, **shared)
    keep_out = re.compile("|".join(config.muon_exclude)) if config.muon_exclude else None

    def is_matrix(name: str, p: nn.Parameter) -> bool:
        return p.ndim >= 2 and not (keep_out and keep_out.search(name))

    matrices = [p for name, p in parameters.items() if is_matrix(name, p)]
    others = [p for name, p in parameters.items() if not is_matrix(name, p)]
    groups = [
        {"params": matrices, "lr": config.muon_learning_rate, "muon": True, **shared},
        {"params": others, "lr": config.learning_rate, "muon": False, **shared},
    ]
    return Muon([group for group in groups if group["params"]])


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int) -> Any:
    """The course of the rate; one `step()` per optimiser step."""
    return get_scheduler(config.schedule, optimizer, num_warmup_steps=config.warmup, num_training_steps=steps)
