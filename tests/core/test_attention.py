"""The reference of attention is the formula; what is chosen runs, or says why not; `auto` measures once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from easyanimate_core import load
from easyanimate_core.errors import KernelUnavailable
from easyanimate_core.interfaces import AttentionBackend, AttentionCall
from easyanimate_core.kernels.attention.auto import Auto, Verdicts, bucket, cache_file
from easyanimate_core.kernels.attention.backends import Cudnn, Flash, Sage
from easyanimate_core.kernels.attention.chosen import ChosenAttention
from easyanimate_core.kernels.attention.reference import Matmul, Sdpa
from easyanimate_core.plugins import active
from easyanimate_core.slots import ATTENTION
from easyanimate_core.testing import write_checkpoint


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


class Wrong:
    """Fast, and not attention."""

    def supports(self, call: AttentionCall) -> str | None:
        return None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Any = None, scale: float | None = None) -> Tensor:
        return torch.zeros_like(q)


class Broken(Wrong):
    """Fails in its own way."""

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no kernel image")


class Counted(Sdpa):
    """Attention that counts how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, *given: Any, **named: Any) -> Tensor:
        self.runs += 1
        return super().__call__(*given, **named)


def heads(length: int = 5) -> Tensor:
    return torch.randn(1, 2, length, 8)


@pytest.fixture
def verdicts(tmp_path: Path) -> Verdicts:
    return Verdicts(tmp_path / "deep" / "attention.json")


@torch.no_grad()
def test_auto_measures_each_kind_of_call_once(verdicts: Verdicts) -> None:
    counted = Counted()
    auto = Auto({"sdpa": Sdpa(), "counted": counted}, verdicts, on=("cpu",))
    auto(heads(), heads(), heads())
    measured = counted.runs
    assert measured > 1
    auto.within(3.0)(heads(7), heads(7), heads(7))  # 5 and 7 share the bucket of 8
    assert counted.runs <= measured + 1
    assert len(verdicts.all()) == 1
    auto(heads(9), heads(9), heads(9))
    assert len(verdicts.all()) == 2


@torch.no_grad()
def test_the_verdict_outlives_the_process(verdicts: Verdicts) -> None:
    first = Auto({"sdpa": Sdpa()}, verdicts, on=("cpu",))
    first(heads(), heads(), heads())
    (key,) = verdicts.all()
    verdicts.keep(key, "counted")
    counted = Counted()
    later = Auto({"sdpa": Sdpa(), "counted": counted}, verdicts, on=("cpu",))
    later(heads(), heads(), heads())
    assert counted.runs == 1
    gone = Auto({"sdpa": Sdpa()}, verdicts, on=("cpu",))
    assert gone.chosen(heads(), heads(), heads(), None, None) == "sdpa"
    assert verdicts.all() == {key: "sdpa"}


@torch.no_grad()
@pytest.mark.parametrize("other", [Wrong(), Broken()], ids=["wrong", "broken"])
def test_a_candidate_that_is_wrong_or_fails_never_wins(other: AttentionBackend, verdicts: Verdicts) -> None:
    auto = Auto({"sdpa": Sdpa(), "other": other}, verdicts, on=("cpu",))
    assert auto.chosen(heads(), heads(), heads(), None, None) == "sdpa"


@torch.no_grad()
def test_a_damaged_cache_costs_a_measurement_and_no_more(verdicts: Verdicts) -> None:
    verdicts.path.parent.mkdir(parents=True)
    verdicts.path.write_text("{ not json")
    auto = Auto({"sdpa": Sdpa()}, verdicts, on=("cpu",))
    auto(heads(), heads(), heads())
    assert list(verdicts.all().values()) == ["sdpa"]


def test_a_folder_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    kept = Verdicts(tmp_path / "file" / "attention.json")
    kept.keep("a", "sdpa")
    assert kept.all() == {}


def test_on_a_cpu_auto_is_torchs_own_and_nothing_is_measured(verdicts: Verdicts) -> None:
    auto, q = Auto(verdicts=verdicts), heads()
    assert torch.equal(auto(q, q, q), Sdpa()(q, q, q))
    assert not verdicts.path.exists()
    call = AttentionCall(head_dim=8, length=5, dtype="float32", device="cpu")
    assert auto.name_for(call) == "sdpa"


def test_verdicts_live_in_the_sdks_home() -> None:
    assert cache_file({"EASYANIMATE_HOME": "/store"}) == Path("/store/attention.json")
    assert cache_file({"XDG_CACHE_HOME": "/c"}) == Path("/c/easyanimate/attention.json")
    assert [bucket(n) for n in (1, 2, 3, 13_360, 16_384, 16_385)] == [1, 2, 4, 16_384, 16_384, 32_768]


@pytest.mark.feature("C051")
@pytest.mark.parametrize("name", ["cudnn", "flash", "triton"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_cannot_run_says_why_and_is_not_replaced(name: str) -> None:
    call = AttentionCall(head_dim=64, length=13_360, dtype="bfloat16", device="cpu")
    chosen = ChosenAttention(name, active().registries[ATTENTION].create(name))
    assert "CUDA device" in str(chosen.supports(call))
    with pytest.raises(KernelUnavailable, match=f"the attention '{name}' cannot run: .*CUDA device.*'cpu'"):
        chosen.check(call)
    with pytest.raises(KernelUnavailable):
        chosen(heads(), heads(), heads())


def test_what_was_chosen_knows_what_ran() -> None:
    chosen = ChosenAttention("auto", Auto())
    assert str(chosen) == "auto"
    chosen.within(8.0)(heads(), heads(), heads())
    assert str(chosen) == "sdpa"


def test_limits_are_told_by_reason() -> None:
    ask = AttentionCall(head_dim=64, length=1, dtype="bfloat16", device="cpu")
    assert "sageattention" in str(Sage().supports(ask))
    wide = replace(ask, head_dim=512, device="meta")
    assert "CUDA" in str(Flash().supports(wide))
    assert "CUDA" in str(Cudnn().supports(ask)) or "cuDNN" in str(Cudnn().supports(ask))


@pytest.mark.feature("C051", "C052")
def test_a_run_refuses_or_records_its_attention(tmp_path: Path) -> None:
    pipe = load("v5.1-12b", weights=write_checkpoint(tmp_path / "tiny"), device="cpu")
    asked: dict[str, Any] = {"prompt": "a red circle", "frames": 5, "size": (128, 128), "steps": 1, "seed": 1}
    video = pipe(**asked, guidance=1.0)
    assert video.notes["attention"] == "sdpa"
    assert pipe(**asked, guidance=1.0, attention="matmul").notes["attention"] == "matmul"
    if not torch.cuda.is_available():
        with pytest.raises(KernelUnavailable, match="'cudnn' cannot run"):
            pipe(**asked, attention="cudnn")
