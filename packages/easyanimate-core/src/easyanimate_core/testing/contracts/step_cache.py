"""The contract of the slot `step_caches`."""

from __future__ import annotations

import json
import unittest
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from easyanimate_core.data import wire
from easyanimate_core.stepping import CacheMemory, DenoiserCall
from easyanimate_core.testing.contracts.contract import Contract, can, close, draw, ensure, rule
from easyanimate_core.testing.toolbox import tiny_toolbox

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.interfaces import Denoiser

__all__ = ["StepCacheContract"]


class StepCacheContract(Contract):
    """A `StepCache`: it answers like the network, owns up to what it skipped, and forgets between runs.

    It is tried on guided steps of a tiny denoiser, whose latents change slowly.

    Attributes:
        options: of the cache; best so that it skips something.
        steps: of the runs that are tried.
    """

    slot: ClassVar[str] = "step_caches"
    steps: ClassVar[int] = 8

    def denoiser(self) -> Denoiser:
        """What is asked; override it for a cache that looks for something special."""
        return tiny_toolbox().denoiser

    def calls(self, denoiser: Denoiser) -> list[DenoiserCall]:
        """The calls of a run, in order."""
        embedding = tiny_toolbox().text_encoders[0].encode(["blurred", "a red circle"])
        one, other = draw(1, 16, 2, 4, 4), draw(1, 16, 2, 4, 4, seed=1)
        made = []
        for index in range(self.steps):
            latents = (one + other * index / self.steps).expand(2, -1, -1, -1, -1)
            timestep = torch.full((2,), 1000.0 * (1 - index / self.steps))
            wired = wire(denoiser.inlets, (), latents)
            call = DenoiserCall(index, self.steps, denoiser, denoiser, latents, timestep, [embedding], wired, True)
            made.append(call)
        return made

    def run(self, cache: Any, calls: list[DenoiserCall]) -> list[Tensor]:
        """The cache's answers to a run's calls."""
        cache.begin(calls[0].model, self.steps)
        return [cache.predict(call, DenoiserCall.computed) for call in calls]

    @rule
    def test_answers_have_the_networks_shape(self) -> None:
        """Every answer has the shape and dtype of the network's own, both halves of guidance included, and is finite.

        If this fails: a half that was left out must be put back in its place, the unguided one first.
        """
        with torch.no_grad():
            calls = self.calls(self.denoiser())
            for index, got in enumerate(self.run(self.create(), calls)):
                wanted = calls[index].computed()
                ensure(got.shape == wanted.shape, f"step {index} has the shape '{tuple(got.shape)}'")
                ensure(
                    got.dtype == wanted.dtype and got.isfinite().all(), f"step {index} is '{got.dtype}', or not finite"
                )

    @rule
    def test_the_first_step_is_computed(self) -> None:
        """The first answer of a run is the network's own: nothing is known before it.

        If this fails: `begin` must forget the run before.
        """
        with torch.no_grad():
            calls = self.calls(self.denoiser())
            wanted, cache = calls[0].computed(), self.create()
            for label in ("the first run", "a second run"):
                close(self.run(cache, calls)[0], wanted, 1e-5, f"the first answer of {label}")

    @rule
    def test_runs_do_not_meet(self) -> None:
        """A second run with the same instance gives the same answers as the first, bit by bit.

        If this fails: `begin` must forget the run before.
        """
        with torch.no_grad():
            calls, cache = self.calls(self.denoiser()), self.create()
            first, second = self.run(cache, calls), self.run(cache, calls)
            close(torch.stack(second), torch.stack(first), 0, "the second run")

    @rule
    def test_the_report_is_honest(self) -> None:
        """The report names steps of the run, in order and each once; a step that it does not name was computed.

        If this fails: count a step as skipped when any part of the network did not run for it.
        """
        with torch.no_grad():
            calls, cache = self.calls(self.denoiser()), self.create()
            answers = self.run(cache, calls)
            report = cache.report()
            ensure(report.total == self.steps, f"it speaks of '{report.total}' steps")
            steps = list(report.skipped)
            fits = steps == sorted(set(steps)) and all(0 <= step < self.steps for step in steps)
            ensure(fits, f"it names the steps '{steps}'")
            ensure(
                report.error >= 0 and (bool(steps) or report.error == 0), f"the error is '{report.error}' for {steps}"
            )
            for index in set(range(self.steps)) - set(steps):
                close(answers[index], calls[index].computed(), 1e-5, f"step {index}, which was not skipped,")
        json.dumps(report.as_json())

    @rule
    def test_a_run_goes_on_in_the_middle(self) -> None:
        """A new instance that recalls what was remembered goes on at any step, bit by bit. Optional: `CacheMemory`.

        If this fails: `remembered` must hold everything that later steps, and the report, depend on.
        """
        cache = self.create()
        if not can(cache, CacheMemory):
            raise unittest.SkipTest("it does not remember: interrupted runs start anew")
        with torch.no_grad():
            calls = self.calls(self.denoiser())
            cache.begin(calls[0].model, self.steps)
            answers, kept = [], []
            for call in calls:
                kept.append({name: value.clone() for name, value in cache.remembered().items()})
                answers.append(cache.predict(call, DenoiserCall.computed))
            for start in (1, self.steps // 2, self.steps - 1):
                resumed = self.create()
                resumed.begin(calls[0].model, self.steps)
                resumed.recall(kept[start])
                for index in range(start, self.steps):
                    got = resumed.predict(calls[index], DenoiserCall.computed)
                    close(got, answers[index], 0, f"step {index} of the run that goes on at {start}")
                ensure(resumed.report() == cache.report(), f"it reports '{resumed.report()}'")
