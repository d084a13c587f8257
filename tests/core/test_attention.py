"""The reference of attention is the formula."""

from __future__ import annotations

import math

import pytest
import torch

from easyanimate_core.interfaces import AttentionBackend, AttentionCall
from easyanimate_core.kernels.attention.reference import Matmul, Sdpa


@pytest.mark.feature("C051")
@pytest.mark.parametrize("backend", [Sdpa(), Matmul()], ids=["sdpa", "matmul"])
@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_a_softmax_over_keys(backend: AttentionBackend, scale: float | None, masked: bool) -> None:
    q = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    k, v = torch.randn(2, 3, 7, 8, dtype=torch.float64), torch.randn(2, 3, 7, 8, dtype=torch.float64)
    mask = (torch.rand(2, 1, 5, 7) > 0.3) | torch.eye(5, 7, dtype=torch.bool) if masked else None
    logits = q @ k.transpose(-1, -2) * (scale or 1 / math.sqrt(8))
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(backend(q, k, v, mask=mask, scale=scale), logits.softmax(-1) @ v)


def test_every_call_is_supported() -> None:
    assert Sdpa().supports(AttentionCall(head_dim=33, length=1, dtype="float64", device="cpu", masked=True)) is None


def test_it_is_differentiable() -> None:
    q, k, v = (torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(Sdpa(), (q, k, v))
    assert torch.autograd.gradcheck(Matmul(), (q, k, v))


def test_long_calls_are_not_for_whole_matrices() -> None:
    call = AttentionCall(head_dim=64, length=13_360, dtype="bfloat16", device="cuda")
    assert "13360 tokens" in str(Matmul().supports(call))
