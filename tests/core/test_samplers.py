"""Samplers: the released schedules to the digit, and the contract that every sampler signs."""

from __future__ import annotations

import math

import pytest
import torch

from easyanimate_core.errors import ConfigError, InvalidRequest
from easyanimate_core.interfaces import NoiseProcess, Sampler
from easyanimate_core.samplers.catalog import Flow
from easyanimate_core.samplers.options import FlowOptions
from easyanimate_core.samplers.process import FlowMatching
from easyanimate_core.schema import parse

RELEASED = {
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
}


def flow(**options: object) -> Flow:
    return Flow(parse(FlowOptions, options))


@pytest.mark.feature("C030")
def test_released_timesteps() -> None:
    timesteps = flow(**RELEASED).schedule(50).timesteps
    torch.testing.assert_close(
        timesteps[[0, 1, 2, 3, 47, 48, 49]],
        torch.tensor([1000.0, 992.4019, 984.6027, 976.5944, 105.9521, 56.0771, 2.7136]),
        rtol=0,
        atol=1e-3,
    )
    assert timesteps.dtype == torch.float32


@pytest.mark.feature("C030")
def test_dynamic_shifting_ignores_shift() -> None:
    one, three = (flow(**{**RELEASED, "shift": shift}).schedule(20).timesteps for shift in (1.0, 3.0))
    assert torch.equal(one, three)


@pytest.mark.feature("C030")
def test_dynamic_schedule_is_the_formula_at_mu_1() -> None:
    s = torch.linspace(1, 0.001, 10, dtype=torch.float64)
    want = 1000 * math.e / (math.e + 1 / s - 1)
    torch.testing.assert_close(flow(**RELEASED).schedule(10).timesteps.double(), want, rtol=1e-6, atol=1e-4)


def test_static_shift() -> None:
    even = flow(shift=1.0).schedule(4).timesteps
    torch.testing.assert_close(even, torch.tensor([1000.0, 667.0, 334.0, 1.0]), rtol=0, atol=1e-3)
    s = flow(shift=3.0).schedule(4).timesteps / 1000
    assert (s[1:-1] > even[1:-1] / 1000).all(), "a shift above 1 spends its steps near noise"


@pytest.mark.feature("C030")
@pytest.mark.parametrize("options", [{"shift": 1.0}, {"shift": 3.0}, RELEASED])
def test_a_straight_field_is_integrated_exactly(options: dict[str, object]) -> None:
    sampler: Sampler = flow(**options)
    clean, noise = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    x = sampler.begin(noise)
    for index in range(len(sampler.schedule(7))):
        x = sampler.step(noise - clean, index, sampler.scale_input(x, index))
    torch.testing.assert_close(x, clean, rtol=0, atol=1e-5)


def test_steps_happen_in_float32_and_return_in_the_predictions_dtype() -> None:
    sampler = flow(**RELEASED)
    sampler.schedule(50)
    x, v = torch.randn(1, 4, 1, 8, 8).bfloat16(), torch.randn(1, 4, 1, 8, 8).bfloat16()
    got = sampler.step(v, 3, x)
    sigma = sampler.schedule(50).timesteps / 1000
    want = x.float() + (sigma[4] - sigma[3]) * v.float()
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, rtol=1e-2, atol=1e-2)


def test_any_step_can_be_taken_again() -> None:
    """What lets an interrupted run go on: the index says which step, not how often `step` was called."""
    sampler = flow(**RELEASED)
    sampler.schedule(10)
    x, v = torch.randn(1, 4, 1, 2, 2), torch.randn(1, 4, 1, 2, 2)
    in_order = [sampler.step(v, index, x) for index in range(10)]
    assert torch.equal(sampler.step(v, 6, x), in_order[6])
    assert torch.equal(sampler.step(v, 2, x), in_order[2])


@pytest.mark.feature("C033")
def test_strength_takes_the_last_steps() -> None:
    sampler = flow(**RELEASED)
    whole, part = sampler.schedule(50).timesteps, sampler.schedule(50, strength=0.7)
    assert (len(part), part.start) == (35, 15)
    assert torch.equal(part.timesteps, whole[15:])
    clean, noise = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    sigma = whole[15] / 1000
    torch.testing.assert_close(sampler.begin(noise, clean), sigma * noise + (1 - sigma) * clean)


@pytest.mark.feature("C033")
def test_strength_0_returns_the_input_and_1_ignores_it() -> None:
    sampler = flow(**RELEASED)
    clean, noise = torch.randn(1, 4, 1, 2, 2), torch.randn(1, 4, 1, 2, 2)
    assert len(sampler.schedule(10, strength=0.0)) == 0
    assert torch.equal(sampler.begin(noise, clean), clean)
    sampler.schedule(10, strength=1.0)
    assert torch.equal(sampler.begin(noise, clean), noise)


def test_a_part_of_a_schedule_needs_something_to_start_from() -> None:
    sampler = flow()
    sampler.schedule(10, strength=0.5)
    with pytest.raises(InvalidRequest, match="no video to start from"):
        sampler.begin(torch.randn(1, 4, 1, 2, 2))


@pytest.mark.parametrize(("steps", "strength"), [(0, 1.0), (-1, 1.0), (10, 1.5), (10, -0.1)])
def test_impossible_schedules_are_refused(steps: int, strength: float) -> None:
    with pytest.raises(InvalidRequest):
        flow().schedule(steps, strength=strength)


def test_schedules_do_not_depend_on_earlier_runs() -> None:
    sampler = flow(**RELEASED)
    first = sampler.schedule(10).timesteps
    sampler.schedule(3, strength=0.5)
    assert torch.equal(sampler.schedule(10).timesteps, first)


def test_misspelt_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="shfit"):
        parse(FlowOptions, {"shfit": 3.0})


def test_flow_matching_is_a_straight_line() -> None:
    process: NoiseProcess = FlowMatching()
    clean, noise = torch.randn(3, 4, 2, 2, 2), torch.randn(3, 4, 2, 2, 2)
    level = torch.tensor([0.0, 0.25, 1.0])
    noised = process.add_noise(clean, noise, level)
    assert torch.equal(noised[0], clean[0])
    assert torch.equal(noised[2], noise[2])
    torch.testing.assert_close(noised[1], 0.25 * noise[1] + 0.75 * clean[1])
    assert torch.equal(process.target(clean, noise, level), noise - clean)


def test_weights_of_levels() -> None:
    level = torch.tensor([0.25, 0.5, 1.0])
    assert torch.equal(FlowMatching().weight(level), torch.ones(3))
    torch.testing.assert_close(FlowMatching("sigma_sqrt").weight(level), torch.tensor([16.0, 4.0, 1.0]))
    torch.testing.assert_close(FlowMatching("cosmap").weight(level), 2 / (math.pi * torch.tensor([0.625, 0.5, 1.0])))
