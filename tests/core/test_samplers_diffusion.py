"""Samplers of discrete diffusion: diffusers' numbers, resuming, strength, and noise of one's own for every sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.golden import assert_close, load_case
from torch import Tensor

from easyanimate_core.errors import CheckpointMismatch, ConfigError, InvalidRequest
from easyanimate_core.interfaces import NoiseProcess, Renoises, Sampler, SamplerState
from easyanimate_core.pipeline.components import build_sampler
from easyanimate_core.plugins import active
from easyanimate_core.presets import find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.samplers.diffusion import Ddim, DpmSolver, Euler, EulerAncestral, Lcm
from easyanimate_core.samplers.options import DdimOptions, DpmSolverOptions, EulerAncestralOptions
from easyanimate_core.samplers.pndm import Pndm
from easyanimate_core.samplers.process import VariancePreserving
from easyanimate_core.schema import Choice, parse
from easyanimate_core.slots import SAMPLERS
from easyanimate_core.testing.tiny import v4, v5

NAMES = ("euler", "euler-a", "dpm++", "pndm", "ddim", "lcm")
V5 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
CLASSES = {
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "pndm": "PNDMScheduler",
    "ddim": "DDIMScheduler",
    "lcm": "LCMScheduler",
}


def sampler(name: str, **options: Any) -> Any:
    quiet = {"clip_sample": False} if name == "ddim" else {}
    return active().registries[SAMPLERS].create(name, {**V5, **quiet, **options})


def answer(latents: Tensor, index: int) -> Tensor:
    """Stands for a denoiser: something smooth that depends on latents and step."""
    return torch.sin(latents + index)


def steps(runner: Any, latents: Tensor, indices: range, generator: Any) -> Tensor:
    for index in indices:
        latents = runner.step(answer(runner.scale_input(latents, index), index), index, latents, generator=generator)
    return latents


CASES = [
    *((name, {}) for name in NAMES),
    ("pndm", {"skip_prk_steps": True}),
    ("dpm++", {"algorithm_type": "sde-dpmsolver++"}),
    ("dpm++", {"solver_order": 3, "use_karras_sigmas": True}),
    ("euler", {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    ("ddim", {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    ("ddim", {"eta": 0.7}),
    ("euler-a", {"timestep_spacing": "leading", "steps_offset": 1}),
    ("lcm", {"original_inference_steps": 20, "timestep_scaling": 5.0}),
]
IDS = [f"{name} {' '.join(f'{k}={v}' for k, v in options.items())}".strip() for name, options in CASES]


@pytest.mark.feature("C029")
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_every_step_is_that_of_diffusers(name: str, options: dict[str, Any]) -> None:
    ours = sampler(name, **options)
    eta = {"eta": options["eta"]} if "eta" in options else {}
    told = {**V5, **({"clip_sample": False} if name == "ddim" else {}), **options}
    theirs = getattr(diffusers, CLASSES[name])(**{key: value for key, value in told.items() if key != "eta"})
    theirs.set_timesteps(7)
    schedule = ours.schedule(7)
    assert torch.equal(schedule.timesteps, theirs.timesteps.float())
    noise = torch.randn(1, 4, 2, 2, 2)
    mine, other = ours.begin(noise), noise * theirs.init_noise_sigma
    drawing = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)]
    for index, timestep in enumerate(theirs.timesteps):
        seen = theirs.scale_model_input(other, timestep)
        assert torch.equal(ours.scale_input(mine, index), seen)
        mine = ours.step(answer(seen, index), index, mine, generator=drawing[0])
        draw = {} if name == "pndm" else {"generator": drawing[1], **eta}
        other = theirs.step(answer(seen, index), timestep, other, **draw, return_dict=False)[0]
        assert torch.equal(mine, other)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_run_goes_on_after_any_step_bit_by_bit(name: str, options: dict[str, Any]) -> None:
    whole = sampler(name, **options)
    total = len(whole.schedule(6))
    begun = whole.begin(torch.randn(2, 4, 1, 2, 2))
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    latents, kept = begun, []
    for index in range(total):
        kept.append(
            (latents, [g.get_state() for g in generators], {k: v.clone() for k, v in whole.remembered().items()})
        )
        latents = steps(whole, latents, range(index, index + 1), generators)
    for index, (then, states, memory) in enumerate(kept):
        again: SamplerState = sampler(name, **options)
        again.schedule(6)
        again.recall(memory)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        assert torch.equal(steps(again, then, range(index, total), generators), latents)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_sample_equals_the_same_sample_made_alone(name: str, options: dict[str, Any]) -> None:
    def made(noise: Tensor, *seeds: int) -> Tensor:
        runner = sampler(name, **options)
        total = len(runner.schedule(5))
        return steps(runner, runner.begin(noise), range(total), [torch.Generator().manual_seed(s) for s in seeds])

    noise = torch.randn(2, 4, 1, 2, 2)
    together = made(noise, 11, 12)
    assert torch.equal(together[:1], made(noise[:1], 11))
    assert torch.equal(together[1:], made(noise[1:], 12))


@pytest.mark.feature("C033")
@pytest.mark.parametrize("name", NAMES)
def test_strength_runs_the_end_of_the_schedule_from_noised_latents(name: str) -> None:
    runner = sampler(name, **({"skip_prk_steps": True} if name == "pndm" else {}))
    assert isinstance(runner, Renoises)
    whole = runner.schedule(10).timesteps
    part = runner.schedule(10, strength=0.55)
    levels = list(dict.fromkeys(part.timesteps.tolist()))
    assert levels == list(dict.fromkeys(whole.tolist()))[5:], "the last five levels"
    assert part.start == 5
    clean, noise = torch.randn(2, 4, 1, 2, 2), torch.randn(2, 4, 1, 2, 2)
    begun = runner.scale_input(runner.begin(noise, clean), 0)
    want = runner.process.add_noise(clean, noise, part.timesteps[0].expand(2))
    torch.testing.assert_close(begun, want, rtol=0, atol=2e-3)
    assert torch.equal(runner.renoise(clean, noise, len(part)), clean)
    with pytest.raises(InvalidRequest, match="no video to start from"):
        runner.begin(noise)


@pytest.mark.feature("C033")
@pytest.mark.parametrize("name", NAMES)
def test_strength_0_returns_the_input(name: str) -> None:
    runner = sampler(name)
    clean, noise = torch.randn(1, 4, 1, 2, 2), torch.randn(1, 4, 1, 2, 2)
    assert len(runner.schedule(10, strength=0.0)) == 0
    assert torch.equal(runner.begin(noise, clean), clean)


def run_with_the_truth(runner: Sampler, clean: Tensor, strength: float) -> Tensor:
    """Latents after a run whose denoiser knows the clean data."""
    schedule = runner.schedule(20, strength=strength)
    latents = runner.begin(torch.randn(clean.shape), clean)
    zero, one = torch.zeros_like(clean), torch.ones_like(clean)
    for index, timestep in enumerate(schedule.timesteps):
        level = timestep.expand(len(clean))
        part, unit = runner.process.add_noise(clean, zero, level), runner.process.add_noise(zero, one, level)
        noise = (runner.scale_input(latents, index) - part) / unit
        prediction = runner.process.target(clean, noise, level)
        latents = runner.step(prediction, index, latents, generator=torch.Generator().manual_seed(index))
    return latents


@pytest.mark.feature("C029", "C033")
@pytest.mark.parametrize("strength", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("name", [*NAMES, "pndm after Runge-Kutta"])
def test_a_denoiser_that_knows_the_truth_arrives_there(name: str, strength: float) -> None:
    """With a part of the schedule too, where the original's PNDM ended one level early."""
    runner = sampler(
        "pndm" if "pndm" in name else name, **({"skip_prk_steps": name == "pndm"} if "pndm" in name else {})
    )
    clean = torch.randn(1, 4, 2, 4, 4)
    left = (run_with_the_truth(runner, clean, strength) - clean).square().mean().sqrt()
    assert left <= 0.05


def test_pndm_without_runge_kutta_asks_once_more_and_with_it_nine_times() -> None:
    assert len(sampler("pndm", skip_prk_steps=True).schedule(20)) == 21
    assert len(sampler("pndm").schedule(20)) == 29
    assert [len(sampler("pndm").schedule(n)) for n in (1, 2, 3, 4)] == [1, 3, 4, 13]


def test_steps_happen_in_float32_and_return_in_the_predictions_dtype() -> None:
    for name in NAMES:
        runner = sampler(name)
        runner.schedule(10)
        latents, prediction = torch.randn(1, 4, 1, 4, 4).bfloat16(), torch.randn(1, 4, 1, 4, 4).bfloat16()
        runner.scale_input(latents, 0)
        got = runner.step(prediction, 0, latents, generator=torch.Generator().manual_seed(0))
        exact = sampler(name)
        exact.schedule(10)
        exact.scale_input(latents, 0)
        want = exact.step(prediction.float(), 0, latents.float(), generator=torch.Generator().manual_seed(0))
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, want.bfloat16())


@pytest.mark.feature("C029")
def test_v5_steps_from_nothing_but_noise() -> None:
    process = sampler("ddim", **{k: v for k, v in v5.SCHEDULER_CONFIG.items() if k != "_class_name"}).process
    clean, noise = torch.randn(1, 4), torch.randn(1, 4)
    last = torch.tensor([999.0])
    assert torch.equal(process.add_noise(clean, noise, last), noise)
    assert torch.equal(process.target(clean, noise, last), -clean), "velocity there is the data: noise says nothing"
    timesteps = sampler("ddim", timestep_spacing="trailing").schedule(50).timesteps
    assert timesteps[[0, 1, 49]].tolist() == [999.0, 979.0, 19.0]
    assert timesteps.bfloat16()[:2].tolist() == [1000.0, 980.0], "as the denoiser of a bfloat16 run sees them"


@pytest.mark.parametrize("recorded", ["train_v4_t2v", "train_v5_t2v"])
def test_training_adds_noise_and_aims_as_recorded(recorded: str) -> None:
    call = load_case(recorded).calls[0]
    said = call.kwargs["scheduler"]
    process: NoiseProcess = VariancePreserving(
        said["num_train_timesteps"],
        beta_start=said["beta_start"],
        beta_end=said["beta_end"],
        beta_schedule=said["beta_schedule"],
        prediction=said["prediction_type"],
    )
    given = (call.inputs["latents"], call.inputs["noise"], call.inputs["timesteps"])
    outputs = {"noisy_latents": process.add_noise(*given), "target": process.target(*given)}
    assert_close(call, outputs, only=outputs)
    assert torch.equal(process.weight(given[2]), torch.ones(len(given[0])))


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noise_schedules_are_those_of_diffusers(schedule: Any) -> None:
    theirs = diffusers.DDPMScheduler(beta_schedule=schedule).alphas_cumprod
    torch.testing.assert_close(VariancePreserving(beta_schedule=schedule).kept, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.feature("C029")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("written", [v4.write_scheduler, v5.write_scheduler])
def test_every_sampler_reads_the_checkpoint_s_config(name: str, written: Any, tmp_path: Path) -> None:
    """Whatever it was written for: settings of other samplers in it are not this one's."""
    runner = build_sampler(Choice.of(SAMPLERS, name), written(tmp_path))
    config = json.loads((tmp_path / "scheduler_config.json").read_text("utf-8"))
    known = type(runner.options).model_fields  # type: ignore[attr-defined]
    shared = {key: value for key, value in config.items() if key in known}
    assert {"beta_end", "prediction_type", "timestep_spacing"} < shared.keys() | {"timestep_spacing"}
    assert {key: getattr(runner.options, key) for key in shared} == shared  # type: ignore[attr-defined]


# What the scheduler config of each generation's releases says; all else is as diffusers writes it.
RELEASED: dict[str, tuple[str, dict[str, Any]]] = {
    "v1": ("DPMSolverMultistepScheduler", {"variance_type": "learned_range"}),
    "v2-512": ("DPMSolverMultistepScheduler", {"variance_type": "learned_range"}),
    "v3-512": ("DDPMScheduler", {"variance_type": "learned_range"}),
    "v4-inp": ("DDPMScheduler", {**V5, "beta_end": 0.03, "steps_offset": 1}),
    "v5-7b-inp": ("DDIMScheduler", {**V5, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
}


@pytest.mark.feature("C029", "C057")
@pytest.mark.parametrize("model", RELEASED)
def test_every_sampler_of_a_generation_is_the_one_that_diffusers_makes_of_its_config(
    model: str, tmp_path: Path
) -> None:
    """The original made its sampler so: whatever class was asked for, of the folder `scheduler/`."""
    kind, said = RELEASED[model]
    getattr(diffusers, kind)(**said).save_pretrained(tmp_path)
    preset = find_preset(model)
    for name in preset.samplers:
        settings = preset.settings_of("sampler", half=False)
        ours: Any = build_sampler(Choice.of(SAMPLERS, name), tmp_path, settings)
        theirs: Any = getattr(diffusers, CLASSES[name]).from_pretrained(tmp_path, variance_type=None)
        theirs.set_timesteps(7)
        assert torch.equal(ours._scheduler.alphas_cumprod, theirs.alphas_cumprod), name
        assert torch.equal(ours.schedule(7).timesteps, theirs.timesteps.float()), name
        assert ours.process.prediction == theirs.config.prediction_type
        if name.startswith(("euler", "dpm")):
            assert torch.equal(ours._scheduler.sigmas, theirs.sigmas), name


@pytest.mark.feature("C029")
@pytest.mark.parametrize("model", ["v4-inp", "v5-7b"])
def test_a_preset_stands_above_the_checkpoint_and_a_request_above_the_preset(model: str, tmp_path: Path) -> None:
    """V4 and V5: a config that says nothing would have clipped the clean latents to ±1."""
    assert diffusers.DDIMScheduler(**V5).config.clip_sample
    diffusers.DDIMScheduler(**V5, clip_sample=True).save_pretrained(tmp_path)
    settings = find_preset(model).settings_of("sampler", half=False)
    for given, clips in (("ddim", False), ({"name": "ddim", "clip_sample": True}, True)):
        runner: Any = build_sampler(Choice.of(SAMPLERS, given), tmp_path, settings)
        assert runner.options.clip_sample is clips
        assert runner.options.beta_end == V5["beta_end"]
    plain: Any = build_sampler(Choice.of(SAMPLERS, "euler"), tmp_path, settings)
    assert not hasattr(plain.options, "clip_sample"), "who has no such setting is not told of it"


@pytest.mark.parametrize("name", NAMES)
def test_a_config_that_diffusers_writes_today_is_read(name: str, tmp_path: Path) -> None:
    getattr(diffusers, CLASSES[name])(**V5).save_pretrained(tmp_path)
    runner: Any = build_sampler(Choice.of(SAMPLERS, name), tmp_path)
    assert runner.options.prediction_type == "v_prediction"


def test_a_setting_that_no_sampler_has_is_refused(tmp_path: Path) -> None:
    path = v5.write_scheduler(tmp_path) / "scheduler_config.json"
    path.write_text(json.dumps({**v5.SCHEDULER_CONFIG, "beta_edn": 0.02}), "utf-8")
    with pytest.raises(CheckpointMismatch, match="beta_edn"):
        build_sampler(Choice.of(SAMPLERS, "ddim"), tmp_path)


def test_released_infinity_is_no_limit() -> None:
    """PixArt's config says −∞, which only Python's JSON can read."""
    assert parse(DpmSolverOptions, {"lambda_min_clipped": float("-inf")}) == DpmSolverOptions()


@pytest.mark.parametrize("options", [{"eta": 2.0}, {"thresholding": True}, {"trained_betas": [0.1]}])
def test_what_does_not_make_sense_for_latents_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse(DdimOptions, options)
    assert parse(EulerAncestralOptions, {}).timestep_spacing == "linspace"


@pytest.mark.feature("C029")
def test_a_sampler_that_a_generation_was_not_trained_for_is_refused_with_the_list() -> None:
    preset = find_preset("v5.1-7b")
    with pytest.raises(InvalidRequest, match="cannot use the sampler 'euler'") as caught:
        preset.complete(GenerationRequest(prompt="x", sampler="euler"))
    assert "flow" in caught.value.hint


@pytest.mark.feature("C029")
def test_a_distilled_model_steps_between_the_levels_of_its_distillation() -> None:
    """A LoRA may have made one of any model before V5.1, so it is asked for by name and in no preset's list."""
    runner = sampler("lcm", original_inference_steps=8)
    assert runner.schedule(4).timesteps.tolist() == [999.0, 749.0, 499.0, 249.0]
    with pytest.raises(InvalidRequest, match="'lcm' is asked for '9' steps, and has 8 to choose from"):
        runner.schedule(9)
    for model in ("v1", "v4-inp", "v5-7b"):
        preset = find_preset(model)
        assert "lcm" not in preset.samplers
        assert preset.complete(GenerationRequest(prompt="x", model=model, sampler="lcm", steps=4)).steps == 4
    with pytest.raises(InvalidRequest, match="cannot use the sampler 'lcm'"):
        find_preset("v5.1-7b").complete(GenerationRequest(prompt="x", sampler="lcm"))


def test_samplers_say_which_generations_they_fit() -> None:
    fits = {name: active().registries[SAMPLERS].get(name).tags for name in (*NAMES, "flow")}
    assert fits["flow"] == {"generation:v5.1"}
    assert fits["ddim"] == {"generation:v4", "generation:v5"}
    assert all("generation:v1" in fits[name] and "generation:v5.1" not in fits[name] for name in NAMES[:4])


@pytest.mark.parametrize("kind", [Euler, EulerAncestral, DpmSolver, Ddim, Pndm, Lcm])
def test_samplers_can_be_built_without_options(kind: Any) -> None:
    assert len(kind().schedule(5)) >= 5
