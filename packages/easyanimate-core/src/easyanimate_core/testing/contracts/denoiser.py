"""The contract of the slot `denoisers`."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from easyanimate_core.data import Condition, Inlet, TextEmbedding, wire
from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions
from easyanimate_core.interfaces import DeclaresInlets, ShowsChange, SplitsTrunk
from easyanimate_core.testing.contracts.contract import Contract, can, close, draw, ensure, rule
from easyanimate_core.testing.tiny.folders import seeded

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DenoiserContract"]


class DenoiserContract(Contract):
    """A `Denoiser`: two seams, inlets, and samples that do not meet.

    Attributes:
        config: content of a small `transformer/config.json`.
        inlets: what its channels after the latents mean, in order, as a preset would say.
        text: tokens and width of each text encoder's embedding.
        latents: `(C, f, h, w)` of a small run.
        tolerance: largest difference of a sample when it is computed beside another.
    """

    slot: ClassVar[str] = "denoisers"
    config: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    inlets: ClassVar[tuple[Inlet, ...]] = ()
    text: ClassVar[tuple[tuple[int, int], ...]] = ((6, 32),)
    latents: ClassVar[tuple[int, int, int, int]] = (16, 2, 4, 6)
    tolerance: ClassVar[float] = 2e-5

    def create(self) -> Any:
        """A new denoiser with random weights and its inlets declared, by the calls that a checkpoint's loader makes."""
        # Without a config it would be built as large as a release.
        ensure(bool(self.config), "the contract has no `config`: say that of a small one")
        with seeded(0):
            denoiser = self.registry().load(self.component)(**self.config)
            if isinstance(denoiser, nn.Module):
                # Gates and heads that begin at zero would hide everything behind them.
                for weight in denoiser.parameters():
                    if not weight.any():
                        nn.init.normal_(weight, std=0.1)
                denoiser.eval()
        if can(denoiser, DeclaresInlets):
            denoiser.declare(self.inlets)
        return denoiser

    def sample(self, seed: int = 0, *, shape: tuple[int, int, int, int] | None = None) -> dict[str, Any]:
        """Inputs of `predict` for one sample: `latents`, `timestep`, `text`, `conditions`."""
        latents = draw(1, *(shape or self.latents), seed=seed)
        text = [
            TextEmbedding(draw(1, length, width, seed=seed + 1), torch.ones(1, length, dtype=torch.int64))
            for length, width in self.text
        ]
        conditions = [self._condition(inlet, latents, seed + 2) for inlet in self.inlets]
        timestep = torch.tensor([700.0 - 100 * seed])
        return {"latents": latents, "timestep": timestep, "text": text, "conditions": conditions}

    def predict(self, denoiser: Any, inputs: Mapping[str, Any]) -> Tensor:
        """The prediction, wired and run as the diffusion loop does it."""
        latents = inputs["latents"]
        wired = wire(denoiser.inlets, inputs["conditions"], latents)
        with torch.no_grad():
            tokens = denoiser.embed(latents, inputs["timestep"], inputs["text"], wired)
            prediction: Tensor = denoiser.head(denoiser.trunk(tokens))
        return prediction

    @staticmethod
    def _condition(inlet: Inlet, latents: Tensor, seed: int) -> Condition:
        shapes = {
            "channels": (1, inlet.width, *latents.shape[2:]),
            "tokens": (1, 3, inlet.width),
            "text": (1, 3, inlet.width),
            "vector": (1, inlet.width),
        }
        return Condition(inlet.name, draw(*shapes[inlet.kind], seed=seed))

    @rule
    def test_prediction_is_as_large_as_the_latents(self) -> None:
        """The prediction is `(B, C or more, f, h, w)` and finite, for a video and for a picture.

        If this fails: `head` puts tokens back in the order in which `embed` cut them.
        """
        denoiser = self.create()
        channels, frames, height, width = self.latents
        for shape in ((channels, frames, height, width), (channels, 1, height, width), (channels, frames, 8, height)):
            got = self.predict(denoiser, self.sample(shape=shape))
            fits = got.shape[2:] == shape[1:] and got.shape[1] >= channels
            ensure(fits, f"the prediction for '{shape}' has the shape '{tuple(got.shape)}'")
            ensure(got.isfinite().all(), "the prediction is not finite")

    @rule
    def test_the_same_inputs_give_the_same_prediction(self) -> None:
        """A denoiser keeps nothing from call to call: the same inputs give the same prediction, bit by bit.

        If this fails: dropout is on, or something is kept between calls.
        """
        denoiser = self.create()
        first = self.predict(denoiser, self.sample())
        self.predict(denoiser, self.sample(1, shape=(self.latents[0], 1, *self.latents[2:])))
        close(self.predict(denoiser, self.sample()), first, 0, "a repeat after another call")

    @rule
    def test_samples_do_not_meet(self) -> None:
        """A sample of a batch is predicted as it is alone: guidance runs both halves as one batch.

        If this fails: look for norms over the batch, and for one timestep or text taken for all samples.
        """
        denoiser = self.create()
        one, two = self.sample(0), self.sample(1)
        pairs = zip(one["conditions"], two["conditions"], strict=True)
        both = {
            "latents": torch.cat([one["latents"], two["latents"]]),
            "timestep": torch.cat([one["timestep"], two["timestep"]]),
            "text": [
                TextEmbedding(torch.cat([a.states, b.states]), torch.cat([a.mask, b.mask]))
                for a, b in zip(one["text"], two["text"], strict=True)
            ],
            "conditions": [Condition(a.inlet, torch.cat([a.value, b.value])) for a, b in pairs],
        }
        together = self.predict(denoiser, both)
        for index, inputs in enumerate((one, two)):
            alone = self.predict(denoiser, inputs)
            close(together[index : index + 1], alone, self.tolerance, f"sample {index} beside the other")

    @rule
    def test_everything_given_counts(self) -> None:
        """Latents, timestep, every text embedding and every inlet change the prediction.

        If this fails: an input is not wired to where it acts. An inlet that nothing reads must not be declared.
        """
        denoiser, inputs, other = self.create(), self.sample(), self.sample(1)
        plain = self.predict(denoiser, inputs)
        for name in ("latents", "timestep"):
            changed = self.predict(denoiser, {**inputs, name: other[name]})
            ensure(not torch.equal(changed, plain), f"other '{name}' change nothing")
        for name in ("text", "conditions"):
            for index in range(len(inputs[name])):
                parts = [*inputs[name][:index], other[name][index], *inputs[name][index + 1 :]]
                changed = self.predict(denoiser, {**inputs, name: parts})
                label = f"text embedding {index + 1}" if name == "text" else f"inlet {self.inlets[index].name}"
                ensure(not torch.equal(changed, plain), f"another '{label}' changes nothing")

    @rule
    def test_inlets_are_as_declared(self) -> None:
        """`inlets` are those that a preset declares, in order, and widths that do not add up are refused.

        If this fails: `declare` keeps what it is given, and raises `CheckpointMismatch` when the checkpoint's input
        channels are others.
        """
        denoiser = self.create()
        names = [inlet.name for inlet in denoiser.inlets]
        ensure(names == [inlet.name for inlet in self.inlets], f"the inlets are '{names}'")
        if not can(denoiser, DeclaresInlets):
            return
        channels = [inlet for inlet in self.inlets if inlet.kind == "channels"]
        wrong = channels[:-1] if channels else [Inlet("surplus", "channels", 3)]
        try:
            denoiser.declare(wrong)
        except CheckpointMismatch:
            return
        ensure(False, f"'{[inlet.name for inlet in wrong]}' are accepted, and do not fit the input channels")

    @rule
    def test_unwired_channels_are_refused(self) -> None:
        """Without the channels of its inlets, `embed` raises `IncompatibleConditions`.

        If this fails: check the channels of the joined input before the first layer.
        """
        if not any(inlet.kind == "channels" for inlet in self.inlets):
            raise unittest.SkipTest("it has no channel inlets")
        inputs = self.sample()
        try:
            self.create().embed(inputs["latents"], inputs["timestep"], inputs["text"], {})
        except IncompatibleConditions:
            return
        ensure(False, "no error")

    @rule
    def test_the_trunk_leaves_its_tokens_alone(self) -> None:
        """`trunk` changes nothing in the tokens that it is given, and `replaced` makes a copy with other video tokens.

        If this fails: step caches keep tokens from before the trunk; look for operations in place.
        """
        denoiser, inputs = self.create(), self.sample()
        wired = wire(denoiser.inlets, inputs["conditions"], inputs["latents"])
        with torch.no_grad():
            tokens = denoiser.embed(inputs["latents"], inputs["timestep"], inputs["text"], wired)
            before = tokens.video.clone()
            after = denoiser.trunk(tokens)
        ensure(torch.equal(tokens.video, before), "the tokens before the trunk have changed")
        ensure(after.video.shape == before.shape, f"the trunk makes '{tuple(after.video.shape)}' of its video tokens")
        other = tokens.replaced(before + 1)
        ensure(torch.equal(other.video, before + 1), "'replaced' does not give the tokens that it is given")
        ensure(torch.equal(tokens.video, before), "'replaced' changes the tokens themselves")

    @rule
    def test_the_trunk_is_its_first_block_and_the_rest(self) -> None:
        """`rest(first(tokens))` is `trunk(tokens)`, bit by bit. Optional: `SplitsTrunk`.

        If this fails: what later blocks take from the first one, by a long skip for example, is part of its tokens.
        """
        denoiser, inputs = self.create(), self.sample()
        if not can(denoiser, SplitsTrunk):
            raise unittest.SkipTest("it does not split its trunk")
        wired = wire(denoiser.inlets, inputs["conditions"], inputs["latents"])
        with torch.no_grad():
            tokens = denoiser.embed(inputs["latents"], inputs["timestep"], inputs["text"], wired)
            close(denoiser.rest(denoiser.first(tokens)).video, denoiser.trunk(tokens).video, 0, "the trunk in two")

    @rule
    def test_its_change_can_be_seen(self) -> None:
        """`probe` gives one vector per video token, another one at another timestep. Optional: `ShowsChange`.

        If this fails: it is what enters the first block's attention, after the timestep has modulated it.
        """
        denoiser, inputs = self.create(), self.sample()
        if not can(denoiser, ShowsChange):
            raise unittest.SkipTest("it does not show its first block's input")
        wired = wire(denoiser.inlets, inputs["conditions"], inputs["latents"])
        with torch.no_grad():
            rest = (inputs["text"], wired)
            tokens = denoiser.embed(inputs["latents"], inputs["timestep"], *rest)
            seen = denoiser.probe(tokens)
            later = denoiser.probe(denoiser.embed(inputs["latents"], inputs["timestep"] / 2, *rest))
        ensure(seen.shape == tokens.video.shape, f"it shows '{tuple(seen.shape)}' of {tuple(tokens.video.shape)}")
        ensure(not torch.equal(seen, later), "half the timestep shows no change")

    @rule
    def test_it_computes_in_its_own_dtype(self) -> None:
        """In bfloat16 the prediction is bfloat16 and finite, and near that of float32.

        If this fails: tables of positions or times in float32 must be cast where they meet the tokens.
        """
        inputs = self.sample()
        wanted = self.predict(self.create(), inputs)
        text = [TextEmbedding(part.states.bfloat16(), part.mask) for part in inputs["text"]]
        half = {
            **inputs,
            "latents": inputs["latents"].bfloat16(),
            "timestep": inputs["timestep"].bfloat16(),
            "text": text,
        }
        got = self.predict(self.create().to(torch.bfloat16), half)
        ensure(got.dtype == torch.bfloat16, f"the prediction is '{got.dtype}'")
        error = ((got.float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()).item()
        ensure(error < 0.1, f"the prediction is off by '{error:.2g}' of its size")
