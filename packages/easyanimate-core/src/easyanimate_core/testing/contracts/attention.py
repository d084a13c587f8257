"""The contract of the slot `attention`."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, ClassVar

import torch

from easyanimate_core.interfaces import AttentionCall
from easyanimate_core.testing.contracts.contract import Contract, draw, ensure, rule

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import AttentionBackend

__all__ = ["AttentionContract"]


class AttentionContract(Contract):
    """An `AttentionBackend`: the formula, within a stated tolerance, wherever it says that it can run.

    Attributes:
        tolerance: largest error against the formula in float64, for inputs of unit deviation.
        dtype: of the inputs, by its name in torch.
        head_dims: widths of a head that are tried.
        lengths: tokens that are tried, odd ones among them.
    """

    slot: ClassVar[str] = "attention"
    tolerance: ClassVar[float] = 1e-5
    dtype: ClassVar[str] = "float32"
    head_dims: ClassVar[tuple[int, ...]] = (16, 64)
    lengths: ClassVar[tuple[int, ...]] = (1, 7, 33)

    @property
    def device(self) -> str:
        """Where it is tried: the kind of device that its tag `device:…` names, else the CPU."""
        kinds = [tag.removeprefix("device:") for tag in self.entry().tags if tag.startswith("device:")]
        return "cpu" if not kinds or "cpu" in kinds else kinds[0]

    def _calls(self, *, masked: bool = False) -> list[AttentionCall]:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise unittest.SkipTest("needs a CUDA device")
        backend: AttentionBackend = self.create()
        sizes = [(width, length) for width in self.head_dims for length in self.lengths]
        calls = [AttentionCall(width, length, self.dtype, self.device, masked) for width, length in sizes]
        able = [call for call in calls if backend.supports(call) is None]
        if not able:
            raise unittest.SkipTest(f"not here: {backend.supports(calls[0])}")
        return able

    def _error(self, call: AttentionCall, *, mask: Tensor | None = None, scale: float | None = None) -> float:
        shape = (2, 3, call.length, call.head_dim)
        given = [draw(*shape, seed=seed).to(call.device, getattr(torch, self.dtype)) for seed in range(3)]
        got = self.create()(*given, mask=mask, scale=scale)
        ensure(got.shape == shape, f"the result has the shape '{tuple(got.shape)}' instead of {shape}")
        ensure(got.dtype == given[2].dtype, f"the result is '{got.dtype}' for {given[2].dtype}")
        q, k, v = (part.double() for part in given)
        logits = q @ k.transpose(-1, -2) * (call.head_dim**-0.5 if scale is None else scale)
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.double()
        error: float = (got.double() - logits.softmax(-1) @ v).abs().max().item()
        return error

    def _check(self, error: float, call: AttentionCall) -> None:
        ensure(error <= self.tolerance, f"the error is '{error:.3g}' (allowed: {self.tolerance:g}) for {call}")

    @rule
    def test_it_is_the_formula(self) -> None:
        """The result is softmax(q·kᵀ/√D)·v within the stated tolerance, for every call that it supports.

        If this fails: a reduced precision needs a `tolerance` that says so; odd lengths need masked tails.
        """
        for call in self._calls():
            self._check(self._error(call), call)

    @rule
    def test_a_scale_takes_the_place_of_its_own(self) -> None:
        """`scale` multiplies the logits instead of 1/√D.

        If this fails: pass the scale on; do not multiply both.
        """
        for call in self._calls():
            self._check(self._error(call, scale=0.3), call)

    @rule
    def test_masks_say_who_is_attended(self) -> None:
        """A boolean mask is true where attention goes; one of numbers is added to the logits.

        If this fails: some libraries mean the opposite. A backend without masks says so in `supports`.
        """
        for call in self._calls(masked=True):
            n = call.length
            kept = (draw(2, 1, n, n, seed=9) > 0) | torch.eye(n, dtype=torch.bool)
            self._check(self._error(call, mask=kept.to(call.device)), call)
            added = draw(2, 1, n, n, seed=8).to(call.device, getattr(torch, self.dtype))
            self._check(self._error(call, mask=added), call)

    @rule
    def test_supports_says_none_or_a_reason(self) -> None:
        """`supports` gives `None`, or a reason that a person understands; it never raises.

        If this fails: return a sentence such as "needs a CUDA device", not a truth value.
        """
        backend: AttentionBackend = self.create()
        for device in ("cpu", "cuda"):
            for dtype in ("float64", "float32", "bfloat16", "int8"):
                answer = backend.supports(AttentionCall(7, 1_000_000, dtype, device, masked=True))
                ensure(answer is None or (isinstance(answer, str) and answer.strip() != ""), f"it says '{answer!r}'")
