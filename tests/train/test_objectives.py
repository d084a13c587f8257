"""Losses: parity with recorded training steps, densities and weights, and the autoencoder's objective."""

from __future__ import annotations

import math

import pytest
import torch
from tests.golden import Call, assert_close, load_case

from easyanimate_core.data import TextEmbedding
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit
from easyanimate_train.interfaces import Batch, Models
from easyanimate_train.objectives.denoise import LEVELS, Denoise, density, flow_error
from easyanimate_train.objectives.options import DenoiseOptions, VaeOptions
from easyanimate_train.objectives.vae import Reconstruct

CASE = load_case("train_v5_1_t2v")


class Given(MMDiT):
    """The model, told which rotary tables to use, as the recorded run was."""

    tables: tuple[torch.Tensor, torch.Tensor]
    seen: torch.Tensor

    def embed(self, latents, timestep, text, conditions, *, rotary=None):  # type: ignore[no-untyped-def]
        return super().embed(latents, timestep, text, conditions, rotary=self.tables)

    def head(self, tokens):  # type: ignore[no-untyped-def]
        self.seen = super().head(tokens)
        return self.seen


@pytest.mark.feature("T105", "T106", "T109", "T110")
@pytest.mark.parametrize("call", CASE.calls, ids=str)
def test_a_step_equals_the_recorded_one(call: Call) -> None:
    model = Given(**CASE.config)
    model.load_state_dict(CASE.state_dict("transformer"), strict=True)
    model.tables = call.inputs["image_rotary_emb"]
    objective = Denoise(
        DenoiseOptions(
            weighting=call.kwargs["weighting_scheme"],
            shift=call.kwargs["shift"],
            motion_share=call.kwargs["motion_sub_loss_ratio"] or 0.0,
        )
    )
    clean, noise = call.inputs["latents"], call.inputs["noise"]
    sigma = objective.levels(call.inputs["u"])
    text = call.inputs["encoder_hidden_states"]
    loss = objective.loss_at(model, clean, noise, sigma, (TextEmbedding(text, torch.ones(text.shape[:2])),))
    loss.backward()
    got = {
        "loss": loss.detach(),
        "timesteps": sigma * LEVELS,
        "sigmas": sigma,
        "noisy_latents": objective.process.add_noise(clean, noise, sigma),
        "model_output": model.seen.detach(),
        "grad_norm": torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm(),
        **{f"grad.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None},
    }
    assert_close(call, {name: got[name].reshape(want.shape) for name, want in call.expected.items()})


@pytest.mark.feature("T106")
def test_densities() -> None:
    rng = torch.Generator().manual_seed(0)
    many = 100_000
    logit = density(DenoiseOptions(weighting="logit_normal"), many, rng)
    assert logit.mean().item() == pytest.approx(0.5, abs=0.005)
    early = density(DenoiseOptions(weighting="logit_normal", logit_mean=-1), many, rng)
    assert early.mean() < 0.35
    assert density(DenoiseOptions(weighting="none"), many, rng).mean().item() == pytest.approx(0.5, abs=0.005)
    mode = density(DenoiseOptions(weighting="mode"), many, rng)
    assert 0 <= mode.min() <= mode.max() <= 1


@pytest.mark.feature("T106")
def test_weights() -> None:
    sigma = torch.tensor([0.25, 0.5, 1.0])
    assert Denoise(DenoiseOptions(weighting="sigma_sqrt")).process.weight(sigma).tolist() == [16, 4, 1]
    cosmap = Denoise(DenoiseOptions(weighting="cosmap")).process.weight(sigma)
    assert cosmap[1].item() == pytest.approx(4 / math.pi)
    assert Denoise().process.weight(sigma).tolist() == [1, 1, 1]


@pytest.mark.feature("T110")
def test_outliers_count_as_zero() -> None:
    prediction = torch.zeros(1, 1, 1, 2, 2)
    target = torch.tensor([1.0, 1.0, 1.0, 100.0]).view(1, 1, 1, 2, 2)
    assert flow_error(prediction, target, torch.ones(1), DenoiseOptions()).item() == pytest.approx(0.75)


@pytest.mark.feature("T109")
def test_motion_needs_three_latent_frames() -> None:
    prediction, target = torch.randn(1, 2, 2, 4, 4), torch.randn(1, 2, 2, 4, 4)
    plain = flow_error(prediction, target, torch.ones(1), DenoiseOptions())
    assert torch.equal(flow_error(prediction, target, torch.ones(1), DenoiseOptions(motion_share=0.5)), plain)


@pytest.fixture
def vae(tmp_path) -> Models:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return Models(tmp_path, vae=Magvit(**VAE_CONFIG))


def test_folding_time_keeps_pictures_and_makes_key_frames(vae: Models) -> None:
    clip = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    with torch.no_grad():
        picture = vae.vae.encode_video(clip[:, :, :1])
        Reconstruct(VaeOptions(fold_time=True, scale=False)).finish(vae, Batch(("",), pixels=clip))
        torch.testing.assert_close(vae.vae.encode_video(clip[:, :, :1]), picture, atol=1e-5, rtol=1e-4)
        alone = [vae.vae.encode_video(clip[:, :, i : i + 1]) for i in (0, 4, 8)]
        torch.testing.assert_close(vae.vae.encode_video(clip), torch.cat(alone, 2), atol=1e-5, rtol=1e-4)


def test_the_scaling_factor_gives_latents_unit_spread(vae: Models) -> None:
    batch = Batch(("", ""), pixels=torch.rand(2, 3, 1, 16, 16) * 2 - 1)
    with torch.no_grad():
        Reconstruct().finish(vae, batch)
        assert vae.vae.encode_video(batch.pixels).std().item() == pytest.approx(1, abs=0.01)


def test_reconstruction_is_repeatable_and_reaches_every_weight(vae: Models) -> None:
    objective = Reconstruct(VaeOptions(latent_noise=0.1))
    batch = Batch(("",), pixels=torch.rand(1, 3, 5, 16, 16) * 2 - 1)
    losses = [objective.loss(vae, batch, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    losses[0].backward()
    assert all(p.grad is not None for p in vae.vae.parameters())
