"""The contract of the slot `presets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from easyanimate_core.plugins import active
from easyanimate_core.presets import Preset, find_preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.slots import DENOISERS, IMAGE_ENCODERS, SAMPLERS, TEXT_ENCODERS, VAES
from easyanimate_core.testing.contracts.contract import Contract, ensure, rule

if TYPE_CHECKING:
    from easyanimate_core.registry import Slot

__all__ = ["PresetContract"]


class PresetContract(Contract):
    """A preset: names of components that are registered, and defaults that the model itself accepts."""

    slot: ClassVar[str] = "presets"

    def create(self) -> Preset:
        """The preset, read strictly."""
        return find_preset(self.component)

    @rule
    def test_its_components_are_registered(self) -> None:
        """Encoders, denoiser, VAE and samplers are registered under the names that the preset says.

        If this fails: correct the name, or register the component in the same distribution.
        """
        preset = self.create()
        parts = preset.components
        slots: tuple[tuple[Slot[Any], tuple[str, ...]], ...] = (
            (TEXT_ENCODERS, parts.text_encoders),
            (IMAGE_ENCODERS, () if parts.image_encoder is None else (parts.image_encoder,)),
            (DENOISERS, (parts.denoiser,)),
            (VAES, (parts.vae,)),
            (SAMPLERS, (*preset.samplers, preset.defaults.sampler)),
        )
        for slot, names in slots:
            unknown = [name for name in names if name not in active().registries[slot]]
            ensure(not unknown, f"no '{slot.name}' component is called '{(unknown or [''])[0]}'")

    @rule
    def test_its_samplers_have_the_settings_that_it_makes(self) -> None:
        """Every entry of `[settings.sampler]` is a setting of at least one of its samplers.

        If this fails: correct the name; settings that no sampler has would be left aside unseen.
        """
        preset, registry = self.create(), active().registries[SAMPLERS]
        models = [registry.options_model(name) for name in preset.samplers]
        known = {field for model in models if model is not None for field in model.model_fields}
        unknown = sorted({*preset.settings.sampler, *preset.float16.sampler} - known)
        ensure(not unknown, f"no sampler of '{preset.name}' has the setting '{(unknown or [''])[0]}'")

    @rule
    def test_its_defaults_are_within_its_limits(self) -> None:
        """Default size and length are what the limits leave unchanged, and the default sampler is one that fits.

        If this fails: a request that says nothing must run as it stands.
        """
        preset = self.create()
        size, frames, limits = preset.defaults.size, preset.defaults.frames, preset.limits
        ensure(limits.fit(size) == size, f"the default size '{size}' becomes {limits.fit(size)}")
        ensure(limits.fit_frames(frames) == frames, f"'{frames}' frames become {limits.fit_frames(frames)}")
        longest = limits.frames_max
        ensure(limits.fit_frames(longest) == longest, f"'frames_max' {longest} becomes '{limits.fit_frames(longest)}'")
        ensure(preset.defaults.sampler in preset.samplers, f"the default sampler is '{preset.defaults.sampler}'")

    @rule
    def test_a_prompt_is_enough(self) -> None:
        """A request of nothing but a prompt is completed.

        If this fails: the error says what the preset leaves open.
        """
        done = self.create().complete(GenerationRequest(prompt="a red circle", seed=1))
        missing = [
            name for name in ("size", "frames", "fps", "steps", "guidance", "sampler") if not getattr(done, name)
        ]
        ensure(not missing, f"'{(missing or [''])[0]}' is left open")

    @rule
    def test_its_inlets_have_names_of_their_own(self) -> None:
        """No two inlets have one name, and every inlet of channels has a width.

        If this fails: an inlet's name is what a condition finds it by.
        """
        names = [inlet.name for inlet in self.create().inlets]
        ensure(len(names) == len(set(names)), f"the inlets are '{names}'")
        bare = [inlet.name for inlet in self.create().inlets if inlet.kind == "channels" and inlet.width < 1]
        ensure(not bare, f"the inlet '{(bare or [''])[0]}' has no width")

    @rule
    def test_its_weights_are_somewhere(self) -> None:
        """A preset says where its weights are: on a hub, or inside a package.

        If this fails: set `huggingface`, `modelscope` or `bundled`.
        """
        preset = self.create()
        ensure(bool(preset.huggingface or preset.modelscope or preset.bundled), "it does not say where they are")
