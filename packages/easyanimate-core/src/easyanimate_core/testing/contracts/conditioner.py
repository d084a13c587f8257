"""The contract of the slot `conditioners`."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from easyanimate_core.data import wire
from easyanimate_core.interfaces import GivesOrigin, HasReference
from easyanimate_core.presets import all_presets
from easyanimate_core.schema import Choice
from easyanimate_core.slots import CONDITIONERS
from easyanimate_core.testing.contracts.contract import Contract, can, close, ensure, rule
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.testing.toolbox import tiny_request, tiny_state, tiny_toolbox

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import Condition, Inlet, Origin, State
    from easyanimate_core.interfaces import Toolbox
    from easyanimate_core.request import GenerationRequest

__all__ = ["ConditionerContract"]


class ConditionerContract(Contract):
    """A `Conditioner`: feeds what it says it feeds, in shapes that a model takes, for every sample of a batch.

    It is tried on a tiny model with random weights that has the inlets of its tags: those of the first preset of
    V5.1 that has them all, else of any.

    Attributes:
        options: something that it can work with, such as a small array in the place of a picture.
        request: fields of `GenerationRequest` in place of those of `tiny_request`.
        inlets: of the model, when no preset has what the tags say.
        tolerance: largest difference of a sample beside others.
    """

    slot: ClassVar[str] = "conditioners"
    request: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    inlets: ClassVar[tuple[Inlet, ...] | None] = None
    tolerance: ClassVar[float] = 2e-5

    @classmethod
    def tagged(cls) -> frozenset[str]:
        """Inlets that the entry's tags name: `inlet:mask` is `mask`."""
        return frozenset(tag.removeprefix("inlet:") for tag in cls.entry().tags if tag.startswith("inlet:"))

    @classmethod
    def model_inlets(cls) -> tuple[Inlet, ...]:
        """The inlets of the model that it is tried on."""
        if cls.inlets is not None:
            return cls.inlets
        wanted = cls.tagged()
        # The tiny model is one of V5.1, with latents of the released width: presets like it first.
        like = VAE_CONFIG["latent_channels"], "v5.1"
        ranked = sorted(all_presets(), key=lambda preset: (preset.latent_channels, preset.generation) != like)
        models = (preset.inlets for preset in ranked)
        found = next((own for own in models if wanted <= {inlet.name for inlet in own}), None)
        ensure(found is not None, f"no preset has the inlets '{', '.join(sorted(wanted))}': say the model's `inlets`")
        return found or ()

    def toolbox(self) -> Toolbox:
        """The tiny model."""
        return _toolbox(self.model_inlets())

    def asked(self, **settings: Any) -> GenerationRequest:
        """A complete request with this condition."""
        entry, options = self.entry(), self.registry().validate(self.component, self.options or None)
        choice = Choice(CONDITIONERS, entry.name, entry.owner, options)
        return tiny_request(**{"conditions": [choice], **self.request, **settings})

    def state(self, **settings: Any) -> State:
        """The state that the conditioner sees, for a complete request with these settings."""
        return tiny_state(self.asked(**settings))

    def encode(self, state: State) -> tuple[Condition, ...]:
        """What a new conditioner makes for a state, without gradients."""
        with torch.no_grad():
            return tuple(self.create().encode(state, self.toolbox()))

    def origin(self, state: State) -> Origin | None:
        """What a new conditioner says that sampling starts from, asked for after `encode`."""
        conditioner = self.create()
        if not can(conditioner, GivesOrigin):
            return None
        with torch.no_grad():
            conditioner.encode(state, self.toolbox())
            found: Origin | None = conditioner.origin(state, self.toolbox())
        return found

    def wired(self, state: State) -> dict[str, Tensor]:
        """The conditions of a state as the denoiser gets them."""
        latents = torch.zeros(self.toolbox().vae.compression.latent_shape(state.geometry))
        return wire(self.model_inlets(), self.encode(state), latents)

    @rule
    def test_it_feeds_what_it_says(self) -> None:
        """Every inlet of its tags is fed, every inlet that is fed is in `inlets()`, and none is fed twice.

        If this fails: tags, `inlets()` and `encode` say the same; a tag refuses models without that inlet, so tag only
        what the conditioner cannot do without.
        """
        names = tuple(self.create().inlets())
        made = [condition.inlet for condition in self.encode(self.state())]
        ensure(all(isinstance(name, str) for name in names), f"inlets() gives '{names}'")
        ensure(self.tagged() <= set(names), f"its tags name '{sorted(self.tagged() - set(names))}', inlets() does not")
        ensure(set(made) <= set(names), f"it feeds '{sorted(set(made) - set(names))}', which inlets() does not name")
        ensure(self.tagged() <= set(made), f"'{sorted(self.tagged() - set(made))}' is not fed")
        ensure(len(made) == len(set(made)), f"it feeds '{made}'")

    @rule
    def test_it_says_something(self) -> None:
        """With the contract's options it makes a condition or an origin.

        If this fails: give `options` with which it has something to say.
        """
        state = self.state()
        ensure(bool(self.encode(state)) or self.origin(state) is not None, "neither conditions nor an origin")

    @rule
    def test_conditions_fit_the_model(self) -> None:
        """Conditions have the model's widths and the latents' grid, are finite, and are for one sample or for all.

        If this fails: see `Condition.value` for shapes; ask the VAE's `compression` for the grid, and use no formula.
        """
        model = {inlet.name: inlet for inlet in self.model_inlets()}
        for settings in ({}, {"frames": 1}, {"size": (48, 32), "videos_per_prompt": 2}):
            state = self.state(**settings)
            batch, _, *grid = self.toolbox().vae.compression.latent_shape(state.geometry)
            for condition in self.encode(state):
                if condition.inlet not in model:
                    continue
                values = [condition.value, *([] if condition.unconditional is None else [condition.unconditional])]
                for value in values:
                    shape, inlet = tuple(value.shape), model[condition.inlet]
                    ensure(shape[0] in (1, batch), f"'{inlet.name}' is for '{shape[0]}' samples of {batch}")
                    if inlet.kind == "channels":
                        wanted = (inlet.width, *grid)
                        ensure(shape[1:] == wanted, f"'{inlet.name}' has the shape '{shape}' instead of (1, *{wanted})")
                    ensure(value.isfinite().all(), f"'{inlet.name}' is not finite")
                first, last = condition.active
                ensure(0 <= first <= last <= 1, f"'{condition.inlet}' is active in '{condition.active}'")
            self.wired(state)

    @rule
    def test_encoding_repeats(self) -> None:
        """The same request gives the same conditions and the same origin, bit by bit.

        If this fails: draw from generators made of the request's seeds; see `conditioning.draws.draw_noise`.
        """
        one, two = self.wired(self.state()), self.wired(self.state())
        for name in one:
            close(two[name], one[name], 0, f"'{name}' of a repeat")
        origins = [self.origin(self.state()) for _ in range(2)]
        if origins[0] is not None and origins[1] is not None:
            close(origins[1].latents, origins[0].latents, 0, "the origin of a repeat")

    @rule
    def test_a_sample_of_a_batch_is_the_sample_alone(self) -> None:
        """Sample *i* of a batch gets what a run of its own, with its own seed, would get.

        If this fails: take the seeds from `request.sample_seeds()`, one generator for each sample.
        """
        seed = 7
        batch = self.state(seed=seed, videos_per_prompt=2)
        alone = [self.state(seed=seed + index) for index in range(2)]
        together = self.wired(batch)
        for index, state in enumerate(alone):
            for name, value in self.wired(state).items():
                got = together[name][index : index + 1]
                close(got, value, self.tolerance, f"'{name}' of sample {index} in a batch")

    @rule
    def test_origin_is_clean_latents(self) -> None:
        """An origin has the latents' shape for one sample or for all, and a strength in 0…1. Optional: `GivesOrigin`.

        If this fails: encode pixels in −1…1 with the toolbox's VAE; `redraw` has one channel on the latents' grid.
        """
        if not can(self.create(), GivesOrigin):
            raise unittest.SkipTest("it does not say what sampling starts from")
        for settings in ({}, {"size": (48, 32), "videos_per_prompt": 2}):
            state = self.state(**settings)
            batch, *shape = self.toolbox().vae.compression.latent_shape(state.geometry)
            origin = self.origin(state)
            if origin is None:
                continue
            got = tuple(origin.latents.shape)
            ensure(got[0] in (1, batch) and got[1:] == tuple(shape), f"the origin has the shape '{got}'")
            ensure(origin.latents.isfinite().all(), "the origin is not finite")
            ensure(0 <= origin.strength <= 1, f"the strength is '{origin.strength}'")
            if origin.redraw is not None:
                places = tuple(origin.redraw.shape)
                ensure(places[1:] == (1, *shape[1:]), f"'redraw' has the shape '{places}'")
                ensure((origin.redraw >= 0).all() and (origin.redraw <= 1).all(), "'redraw' leaves 0…1")

    @rule
    def test_reference_is_known_without_weights(self) -> None:
        """The size of what was given is positive, and known from the request alone. Optional: `HasReference`.

        If this fails: read the file's head in `reference`, and leave the work to `encode`.
        """
        conditioner = self.create()
        if not can(conditioner, HasReference):
            raise unittest.SkipTest("it has no reference")
        told = conditioner.reference(self.asked())
        if told is None:
            return
        ensure(told.height > 0 and told.width > 0, f"the size is '{told.height}x{told.width}'")
        ensure(told.frames is None or told.frames > 0, f"it has '{told.frames}' frames")


@cache
def _toolbox(inlets: tuple[Inlet, ...]) -> Toolbox:
    """One model for all rules: nothing may change it."""
    return tiny_toolbox(inlets)
