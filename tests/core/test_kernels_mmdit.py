"""Work that the transformer no longer does, and that leaving it out changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.models.attention import FeedForward
from torch import Tensor

from easyanimate_core import load
from easyanimate_core.data import TextEmbedding
from easyanimate_core.denoisers.mmdit import MMDiT, MMDiTTokens, fused, products
from easyanimate_core.denoisers.mmdit.block import Step
from easyanimate_core.engine.planner.counting import Counts, count
from easyanimate_core.events import Event, EventBus, Notice
from easyanimate_core.interfaces import AttentionBackend, PreparesSteps, UsesAttention
from easyanimate_core.kernels import use
from easyanimate_core.kernels.attention.backends import TritonAttention
from easyanimate_core.kernels.attention.reference import Sdpa
from easyanimate_core.pipeline.cancelling import cancellable
from easyanimate_core.pipeline.halves import Halves
from easyanimate_core.stepping import DenoiserCall
from easyanimate_core.storage.linear import keep_narrow, replace_linears
from easyanimate_core.testing.tiny import write_checkpoint


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
    given, step = [tokens.video, tokens.text], Step(tokens.temb, *tokens.rotary)
    (video, new), (same, kept) = block(given, step), block(given, step._replace(text_out=False))
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


# --- what a GPU gets ------------------------------------------------------------------------------------


def through(model: MMDiT, tokens: MMDiTTokens, *, together: bool) -> list[Tensor]:
    """All blocks, as modules one after the other or as a GPU would get them, with the definitions of its kernels."""
    last = len(model.transformer_blocks) - 1
    streams = [tokens.video, tokens.text]
    streams = fused.joined(streams) if together else streams
    for index, block in enumerate(model.transformer_blocks):
        streams = block(streams, Step(tokens.temb, *tokens.rotary, text_out=index < last, fused=together))
    return fused.parted(streams, 0) if together else streams


def embedded(model: MMDiT, batch: int = 2, height: int = 6) -> MMDiTTokens:
    latents = torch.randn(batch, 16, 2, height, 8)
    return model.embed(latents, torch.full((batch,), 500.0), text(batch), {})


@torch.no_grad()
@pytest.mark.parametrize("mmdit_layers", [3, 1, 0])
def test_what_a_gpu_gets_is_the_same_function(mmdit_layers: int) -> None:
    model = stirred(mmdit_layers)
    assert all(map(fused.fusable, model.blocks))
    tokens = embedded(model)
    want, got = (through(model, tokens, together=together)[0] for together in (False, True))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_it_does_not_matter_how_a_backend_lays_out_what_it_gives() -> None:
    """By sample, then by token, as FlashAttention and torch's efficient attention do; queries lie the other way."""

    def by_sample(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return Sdpa()(q, k, v).transpose(1, 2).contiguous().transpose(1, 2)

    model = stirred()
    for block in model.blocks:
        block.backend = cast("AttentionBackend", by_sample)
    tokens = embedded(model)
    want, got = (through(model, tokens, together=together)[0] for together in (False, True))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_both_streams_come_back_after_any_block() -> None:
    model = stirred()
    tokens, block = embedded(model), model.transformer_blocks[0]
    step = Step(tokens.temb, *tokens.rotary)
    apart = block([tokens.video, tokens.text], step)
    waiting = block(fused.joined([tokens.video, tokens.text]), step._replace(fused=True))
    for got, want in zip(fused.parted(waiting, tokens.text.shape[1]), apart, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, None], ids=str)
def test_many_tokens_are_fed_in_parts_whatever_weights_are_kept_as(dtype: torch.dtype | None) -> None:
    model = stirred()
    if dtype is not None:
        replace_linears(model.transformer_blocks, dtype)
    tokens = embedded(model, batch=4, height=512)
    assert tokens.video.shape[:2].numel() == 8192
    want, got = (through(model, tokens, together=together)[0] for together in (False, True))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_who_wraps_a_layer_sees_it_called() -> None:
    """Adapters and offload strategies do; if this fails, a LoRA has no effect on a GPU."""
    model = stirred()
    tokens, called = embedded(model), set()
    layers = [m for m in model.transformer_blocks.modules() if isinstance(m, torch.nn.Linear)]
    plain = through(model, tokens, together=True)[0]
    for layer in layers:
        layer.register_forward_hook(lambda module, given, made: (called.add(id(module)), made + 0.01)[1])
    want, got = (through(model, tokens, together=together)[0] for together in (False, True))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(got, plain, atol=1e-3)
    assert called == {id(layer) for layer in layers}


def test_a_norm_that_somebody_wrapped_is_called() -> None:
    model = stirred()
    keep_narrow(model.blocks[1].attn1.norm_q, torch.float8_e4m3fn)
    model.blocks[2].norm2.norm = torch.nn.Sequential(model.blocks[2].norm2.norm)
    assert [fused.fusable(block) for block in model.blocks] == [True, False, False]


def test_a_run_that_can_be_cancelled_wraps_nothing_inside_of_blocks(tmp_path: Path) -> None:
    toolbox = load("nano", weights=write_checkpoint(tmp_path / "tiny", max_length=32)).prepare()
    model: Any = toolbox.denoiser
    with cancellable(toolbox):
        for block in model.blocks:
            assert products.wrapped(block)
            assert not any(products.wrapped(part) for part in block.modules() if part is not block)


# --- what a CPU gets ------------------------------------------------------------------------------------


@torch.no_grad()
def test_what_a_hook_keeps_stays_as_it_was() -> None:
    model, kept = stirred(), list[tuple[Tensor, Tensor]]()
    for block in model.blocks:
        for module in (block.norm2.norm, block.attn1.to_out[0], block.ff.net[2]):
            module.register_forward_hook(lambda _, given, made: kept.append((made, made.clone())))
    through(model, embedded(model), together=False)
    assert len(kept) > 9
    assert all(torch.equal(made, copy) for made, copy in kept)


@torch.no_grad()
def test_rotary_tables_may_be_of_any_type() -> None:
    model = stirred()
    tokens, narrow = embedded(model), torch.bfloat16
    cos, sin = (table.to(narrow) for table in tokens.rotary)
    want = through(model, replace(tokens, rotary=(cos.float(), sin.float())), together=False)[0]
    assert torch.equal(through(model, replace(tokens, rotary=(cos, sin)), together=False)[0], want)


@torch.no_grad()
def test_products_on_a_cpu_are_those_of_the_layers() -> None:
    """Odd sizes, slices of other tensors. With `reference` they are the layers' own, bit by bit."""
    for rows, width in ((1, 3), (70, 33), (300, 192)):
        feed = FeedForward(width, activation_fn="gelu-approximate", final_dropout=True).eval()
        x = torch.randn(2, rows + 5, width)[:, 5:]
        layer = torch.nn.Linear(width, width)
        for got, want in ((products.linear(layer, x), layer(x)), (products.feed_forward(feed, x), feed(x))):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        with use("reference"):
            assert torch.equal(products.linear(layer, x), layer(x))
            assert torch.equal(products.feed_forward(feed, x), feed(x))


def test_where_gradients_are_wanted_layers_are_called() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    assert products.linear(layer, x).requires_grad
    called: list[str] = []
    layer.register_forward_hook(lambda *_: called.append("here"))
    with torch.no_grad():
        products.linear(layer, x)
    assert called == ["here"]


def counted(layers: int, stored: torch.dtype | None = None) -> tuple[Counts, int]:
    """What a guided step of V5.1 12B takes at 384x672, 49 frames, and bytes of the video tokens."""
    sizes = {"num_attention_heads": 48, "num_layers": layers, "text_embed_dim": 3584, "text_embed_dim_t5": None}
    with torch.device("meta"):
        model = torch.nn.Module.to(MMDiT(**sizes, add_norm_text_encoder=True), torch.bfloat16).eval()
        latents = torch.empty(2, 16, 13, 48, 84, dtype=torch.bfloat16)
        states = torch.empty(2, 256, 3584, dtype=torch.bfloat16)
        given = (TextEmbedding(states, torch.ones(2, 256, dtype=torch.long)),)
        times = torch.empty(2, dtype=torch.bfloat16)
    if stored is not None:
        replace_linears(model, stored)
    (step,) = model.prepared(times[:1], given, torch.bfloat16) or ()
    tokens = [step.embed(latents, times, given, {})]
    unit = tokens[0].video.numel() * 2
    return count(lambda: step.trunk(tokens.pop()), model, fused=True), unit


@pytest.mark.feature("C064")
@torch.no_grad()
def test_a_layer_is_few_kernels_little_traffic_and_little_memory() -> None:
    (many, unit), (few, _) = counted(4), counted(2)
    kernels, products = (many.kernels - few.kernels) / 2, (many.products - few.products) / 2
    assert (kernels, products) == (19, 15)
    assert (many.moved - few.moved) / 2 <= 12.5 * unit
    assert many.peak <= 5.2 * unit


@torch.no_grad()
def test_weights_of_one_byte_are_widened_in_few_passes() -> None:
    """Twice per weight: to the type, then by its scale. The kernels stay; nothing falls back to plain operations."""
    (many, unit), (few, _) = counted(4, torch.float8_e4m3fn), counted(2, torch.float8_e4m3fn)
    assert (many.kernels - few.kernels) / 2 == 37
    assert (many.moved - few.moved) / 2 <= 18 * unit
    assert many.peak <= 5.4 * unit


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
