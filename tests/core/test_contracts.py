"""The conformance kit finds what it is for: who breaks a rule is told so in words; and its page is true."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from easyanimate_core.interfaces import Schedule
from easyanimate_core.samplers.catalog import Flow
from easyanimate_core.testing import (
    CONTRACTS,
    AttentionContract,
    Contract,
    PluginContract,
    SamplerContract,
    contracts_of,
    rule,
    rules_of,
)
from easyanimate_core.testing.contracts.attention import AttentionContract as Home
from workspace import ROOT


class Hasty(Flow):
    """Stops two steps before clean data, and changes the prediction in place."""

    def schedule(self, steps: int, *, strength: float = 1.0) -> Schedule:
        whole = super().schedule(steps, strength=strength)
        return Schedule(whole.timesteps[:-2], whole.start)

    def step(self, prediction: Tensor, index: int, latents: Tensor, *, generator: Any = None) -> Tensor:
        return super().step(prediction.mul_(1.0001), index, latents, generator=generator)


class OfHasty(SamplerContract):
    component = "hasty"

    def create(self) -> Any:
        return Hasty()


class OfCrude(AttentionContract):
    component = "sdpa"
    head_dims = (8,)

    def create(self) -> Any:
        return lambda q, k, v, *, mask=None, scale=None: v


def test_a_broken_rule_says_who_what_and_where_to_look():
    with pytest.raises(AssertionError) as caught:
        OfHasty().test_last_step_reaches_clean_data()
    first, found, advice = str(caught.value).splitlines()
    assert first == ("'hasty' in 'samplers' breaks a rule: With a perfect denoiser the last step ends at clean data.")
    assert re.fullmatch(r"Found: what is left is '0\.\d+' \(allowed: 0.05\)", found)
    assert advice.startswith("If this fails: the schedule lacks its last interval")


def test_changes_in_place_are_found():
    with pytest.raises(AssertionError, match="A step changes neither the latents nor the prediction"):
        OfHasty().test_a_step_leaves_its_inputs_alone()


def test_what_a_component_raises_comes_with_the_rule():
    with pytest.raises(AttributeError) as caught:
        OfCrude().test_it_is_the_formula()  # a function has no `supports`
    assert any("breaks a rule: The result is softmax" in note for note in caught.value.__notes__)


def test_a_rule_cannot_be_overridden_or_deleted():
    for body in ({"test_schedule_resets": lambda self: None}, {"test_schedule_resets": None}):
        with pytest.raises(TypeError, match=r"overrides the rule 'test_schedule_resets'.*xfail\(reason="):
            type("TestMine", (SamplerContract,), body)


def test_a_rule_can_be_excused_with_a_reason():
    class Forgetful(SamplerContract):
        @pytest.mark.xfail(reason="remembers nothing yet")
        def test_a_run_goes_on_in_the_middle(self) -> None:
            super().test_a_run_goes_on_in_the_middle()

    def unexplained(self: Any) -> None: ...

    with pytest.raises(TypeError, match="reason"):
        type("TestMine", (Forgetful,), {"test_schedule_resets": pytest.mark.xfail()(unexplained)})


def test_a_slot_of_ones_own_gets_a_contract_the_same_way():
    class Quiet(Contract):
        slot = "bells"

        @rule
        def test_it_is_quiet(self) -> None:
            """A bell is quiet.

            If this fails: stop it.
            """
            torch.testing.assert_close(1, 1)

    assert rules_of(Quiet) == (("test_it_is_quiet", "A bell is quiet."),)
    Quiet().test_it_is_quiet()


def test_every_registered_component_gets_its_contract():
    made = contracts_of("easyanimate-core", cases={"samplers/flow": [{}, {"options": {"shift": 3.0}}]})
    assert made["TestSamplersFlow2"].options == {"shift": 3.0}
    assert issubclass(made["TestEasyanimateCore"], PluginContract)
    assert made["TestSamplersFlow"].component == "easyanimate-core:flow"
    with pytest.raises(ValueError, match="a case for 'samplers/flwo', which is not registered"):
        contracts_of("easyanimate-core", cases={"samplers/flwo": [{}]})


@pytest.mark.parametrize("contract", [*CONTRACTS.values(), PluginContract], ids=lambda kind: kind.__name__)
def test_every_rule_is_documented_and_says_where_to_look(contract: type[Contract]):
    page = (ROOT / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")
    section = page.split(f"### `{contract.__name__}`: ")[1].split("\n### ")[0]
    assert tuple(re.findall(r"^\| `(test_\w+)` \| (.+) \|$", section, re.MULTILINE)) == rules_of(contract)
    for name, _ in rules_of(contract):
        assert "\n\nIf this fails: " in re.sub(r"\n +", "\n", getattr(contract, name).__doc__)


def test_names_are_resolved_when_they_are_used():
    assert AttentionContract is Home
