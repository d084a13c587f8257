"""Work that the transformer no longer does, and that leaving it out changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from easyanimate_core.data import TextEmbedding
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.events import Event, EventBus, Notice
from easyanimate_core.interfaces import PreparesSteps, UsesAttention
from easyanimate_core.kernels.attention.backends import TritonAttention
from easyanimate_core.kernels.attention.reference import Sdpa
from easyanimate_core.pipeline.halves import Halves
from easyanimate_core.stepping import DenoiserCall


def stirred(mmdit_layers: int = 2) -> MMDiT:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "time_embed_dim": 32}
    model = MMDiT(
        **sizes, mmdit_layers=mmdit_layers, text_embed_dim=24, text_embed_dim_t5=None, add_norm_text_encoder=True
    ).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.1)
    return model


def text(batch: int = 2) -> tuple[TextEmbedding, ...]:
    return (TextEmbedding(torch.randn(batch, 5, 24), torch.ones(batch, 5, dtype=torch.long)),)


def call(model: MMDiT, given: tuple[TextEmbedding, ...], timestep: Tensor) -> DenoiserCall:
    latents = torch.randn(1, 16, 2, 4, 6)
    return DenoiserCall(0, 1, model, model, torch.cat([latents, latents]), timestep.expand(2), given, {}, True)


@torch.no_grad()
def test_what_is_prepared_is_what_the_loop_would_compute() -> None:
    model, given, timesteps = stirred(), text(), torch.tensor([999.0, 500.5, 3.25])
    assert isinstance(model, PreparesSteps)
    prepared = model.prepared(timesteps, given, torch.float32)
    assert prepared is not None
    assert len(prepared) == 3
    latents = torch.randn(2, 16, 2, 4, 6)
    for step, timestep in zip(prepared, timesteps, strict=True):
        tokens = step.embed(latents, timestep.expand(2), given, {})
        plain = model.embed(latents, timestep.expand(2), given, {})
        assert torch.equal(step.head(step.trunk(tokens)), model.head(model.trunk(plain)))


@torch.no_grad()
def test_another_text_is_projected_anew() -> None:
    model, given, timesteps = stirred(), text(), torch.tensor([500.0])
    (step,) = model.prepared(timesteps, given, torch.float32) or ()
    latents, other = torch.randn(2, 16, 1, 4, 6), text()
    assert torch.equal(step.embed(latents, timesteps.expand(2), other, {}).text, model._project_text(other))


@torch.no_grad()
def test_weights_that_are_elsewhere_are_not_read_beforehand() -> None:
    model = stirred()
    model.transformer_blocks[1].to("meta")
    assert model.prepared(torch.tensor([1.0]), text(), torch.float32) is None


@torch.no_grad()
@pytest.mark.parametrize("mmdit_layers", [3, 1])
def test_the_text_of_the_last_block_is_left_out_and_nobody_notices(mmdit_layers: int) -> None:
    model = stirred(mmdit_layers)
    block = model.transformer_blocks[-1]
    tokens = model.embed(torch.randn(1, 16, 2, 4, 6), torch.tensor([500.0]), text(1), {})
    given = (tokens.video, tokens.text, tokens.temb, *tokens.rotary)
    (video, new), (same, kept) = block(*given), block(*given, None, False)
    assert torch.equal(video, same)
    assert torch.equal(kept, tokens.text)
    assert not torch.equal(new, tokens.text)


@torch.no_grad()
def test_no_logit_is_larger_than_the_bound() -> None:
    model = stirred()
    for block in model.transformer_blocks:
        bound = block.logit_bound()
        x = 50 * torch.randn(1, 200, 32)
        sides = [side.qkv(x) for side in (block.attn1, block.attn2) if side is not None]
        for q in (side[0] for side in sides):
            for k in (side[1] for side in sides):
                assert float((q @ k.transpose(-1, -2)).abs().max()) / 4 <= bound


def test_a_backend_that_can_use_the_bound_is_told() -> None:
    model = stirred()
    assert isinstance(model, UsesAttention)
    model.set_attention(TritonAttention())
    bounds = [block.backend.bound for block in model.transformer_blocks]
    assert bounds == [block.logit_bound() for block in model.transformer_blocks]
    model.set_attention(Sdpa())
    assert all(isinstance(block.backend, Sdpa) for block in model.transformer_blocks)


class Small(MMDiT):
    """A transformer on a device that is too small for a batch of two."""

    def trunk(self, tokens):  # type: ignore[no-untyped-def]
        if tokens.video.shape[0] > 1:
            raise torch.OutOfMemoryError("too small")
        return super().trunk(tokens)


@torch.no_grad()
def test_both_halves_run_one_after_the_other_when_they_do_not_fit_at_once() -> None:
    model, given, timestep = stirred(), text(), torch.tensor([500.0])
    asked = call(model, given, timestep)
    whole = asked.computed()
    model.__class__ = Small
    heard: list[Event] = []
    halves = Halves(EventBus(heard.append))
    for _ in range(2):
        torch.testing.assert_close(halves.predict(asked), whole, rtol=1e-5, atol=1e-6)
    assert [type(event) for event in heard] == [Notice]
    single = asked.conditional()
    torch.testing.assert_close(halves.predict(single), whole[1:], rtol=1e-5, atol=1e-6)
