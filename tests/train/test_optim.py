"""Optimisers and rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from easyanimate_train.config import OptimConfig
from easyanimate_train.loop.optim import make_optimizer, make_schedule, orthogonalised


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8)])
def test_orthogonalised_matrices_turn_and_do_not_stretch(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    # The published coefficients trade exactness for speed: singular values end up near 1, not at it.
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_our_adamw_equals_torchs() -> None:
    torch.manual_seed(0)
    a = nn.Parameter(torch.randn(5))
    b = nn.Parameter(a.detach().clone())
    config = OptimConfig(name="muon", learning_rate=0.01, weight_decay=0.1)
    ours = make_optimizer({"norm": a}, config)
    theirs = torch.optim.AdamW([b], lr=0.01, betas=config.betas, weight_decay=0.1, eps=1e-8)
    for step in range(5):
        for p, optimizer in ((a, ours), (b, theirs)):
            p.grad = torch.sin(p.detach() * (step + 1))
            optimizer.step()
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_muon_takes_matrices_and_leaves_the_rest() -> None:
    named = {
        "denoiser.to_q.weight": nn.Parameter(torch.zeros(4, 4)),
        "denoiser.proj.weight": nn.Parameter(torch.zeros(4, 3, 2, 2)),
        "vae.conv.weight": nn.Parameter(torch.zeros(4, 3, 3, 3, 3)),
        "denoiser.norm.weight": nn.Parameter(torch.zeros(4)),
    }
    optimizer = make_optimizer(named, OptimConfig(name="muon", muon_exclude=(r"denoiser\.proj\.",)))
    groups = {group["muon"]: len(group["params"]) for group in optimizer.param_groups}
    assert groups == {True: 2, False: 2}


def test_muon_learns_a_linear_map() -> None:
    torch.manual_seed(0)
    layer, truth = nn.Linear(8, 8, bias=False), torch.randn(8, 8) / 3
    optimizer = make_optimizer({"weight": layer.weight}, OptimConfig(name="muon", muon_learning_rate=0.05))
    schedule = make_schedule(optimizer, OptimConfig(schedule="linear"), 200)
    for _ in range(200):
        x = torch.randn(64, 8)
        loss = (layer(x) - x @ truth.T).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert loss < 1e-3


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.0), ("linear", 0.0), ("constant_with_warmup", 1.0)])
def test_rates_warm_up_and_end(schedule: str, end: float) -> None:
    config = OptimConfig(name="adamw", learning_rate=1.0, schedule=schedule, warmup=10)
    optimizer = make_optimizer({"w": nn.Parameter(torch.zeros(1))}, config)
    course = make_schedule(optimizer, config, 100)
    rates = []
    for _ in range(100):
        rates.append(course.get_last_lr()[0])
        optimizer.step()
        course.step()
    assert rates[:11] == pytest.approx([i / 10 for i in range(11)])
    assert course.get_last_lr()[0] == pytest.approx(end, abs=1e-6)
