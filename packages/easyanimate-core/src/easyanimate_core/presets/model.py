"""`Preset`: what a released model is. Everything that was once decided by a folder's name is a line here.

Numbers of the architecture are not: they come from the checkpoint's own `config.json`.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from easyanimate_core.data import Inlet
from easyanimate_core.errors import CheckpointNotFound, InvalidRequest
from easyanimate_core.interfaces import StepCache
from easyanimate_core.plugins import active
from easyanimate_core.request import GenerationRequest, Size
from easyanimate_core.schema import Choice, Hint, Model
from easyanimate_core.slots import SAMPLERS

__all__ = ["Components", "Defaults", "Extra", "Limits", "Preset", "Settings"]


class Components(Model):
    """What the model is made of, by registered name."""

    text_encoders: tuple[str, ...] = Field(min_length=1)
    """In the order in which the denoiser wants their embeddings."""

    image_encoder: str | None = None
    """In the slot `image_encoders`, for a denoiser that attends to a picture."""

    denoiser: str
    """In the slot `denoisers`."""

    vae: str
    """In the slot `vaes`."""


class Settings(Model):
    """Settings of components that stand above those of the checkpoint's own `config.json`."""

    text_encoder: Mapping[str, Any] = Field(default_factory=dict)
    """Of every text encoder, besides config, tokenizer and length."""

    denoiser: Mapping[str, Any] = Field(default_factory=dict)
    """By the name that they have in `config.json`."""

    vae: Mapping[str, Any] = Field(default_factory=dict)
    """By the name that they have in `config.json`."""

    sampler: Mapping[str, Any] = Field(default_factory=dict)
    """Of samplers that have them, by the name that they have in `scheduler_config.json`; a request's stand above."""


class Defaults(Model):
    """What a request gets where it says nothing."""

    size: Size
    """HEIGHTxWIDTH in pixels."""

    frames: Annotated[int, Field(ge=1), Hint(unit="frames")]
    """Length in frames."""

    fps: Annotated[float, Field(gt=0), Hint(unit="frames/s")]
    """Frames per second of the written video; the rate that the model was trained at."""

    steps: Annotated[int, Field(ge=1), Hint(unit="steps")]
    """Denoising steps."""

    guidance: Annotated[float, Field(ge=1, le=30)]
    """Classifier-free guidance scale."""

    sampler: str
    """Name of a sampler; its options come from the checkpoint."""

    negative_prompt: str = ""
    """For the unguided half of guidance."""


class Limits(Model):
    """What the model can do."""

    size_min: Annotated[int, Field(ge=1), Hint(unit="px")]
    """Smallest height and width in pixels."""

    size_max: Annotated[int, Field(ge=1), Hint(unit="px")]
    """Largest height and width in pixels."""

    size_multiple: Annotated[int, Field(ge=1), Hint(unit="px")]
    """Height and width are rounded down to multiples of this many pixels."""

    frames_max: Annotated[int, Field(ge=1), Hint(unit="frames")]
    """Longest video in frames."""

    frames_step: Annotated[int, Field(ge=1), Hint(unit="frames")]
    """Frame counts are rounded down to this step times a whole number, plus one."""

    def fit(self, size: Size) -> Size:
        """The size rounded down to what the model can do.

        Raises:
            InvalidRequest: a side is shorter than `size_min` or longer than `size_max`.
        """
        if min(size.height, size.width) < self.size_min or max(size.height, size.width) > self.size_max:
            raise InvalidRequest(
                f"the size is '{size}', but this model makes {self.size_min} to {self.size_max} pixels a side",
                f"Choose height and width within these limits, in multiples of {self.size_multiple}.",
            )
        step = self.size_multiple
        return Size(height=size.height // step * step, width=size.width // step * step)

    def fit_frames(self, frames: int) -> int:
        """The frame count rounded down to what the model can do; the VAE has the last word.

        Raises:
            InvalidRequest: it is more than `frames_max` even so.
        """
        fitted = max(frames - 1, 0) // self.frames_step * self.frames_step + 1
        if fitted > self.frames_max:
            raise InvalidRequest(
                f"'{frames}' frames are asked for, but this model makes at most {self.frames_max}",
                f"Choose --frames {self.frames_max} or fewer.",
            )
        return fitted


class Extra(Model):
    """A file that is released beside a model: what completes it, or changes it."""

    name: str
    """Of the file."""

    kind: Literal["motion-module", "lora", "denoiser"]
    """`motion-module`: the model needs it (`--motion-path`). `lora`: `--lora`. `denoiser`: `--transformer-path`."""

    summary: str
    """One line on what it does."""

    disk_gb: Annotated[float, Field(gt=0), Hint(unit="GB")] | None = None
    """Size on disk in gigabytes (10⁹ bytes), where it was published."""

    huggingface: str | None = None
    """`owner/name:FILE` on the Hugging Face hub."""

    modelscope: str | None = None
    """`owner/name:FILE` on ModelScope."""

    url: str | None = None
    """Address of the file where no hub has it."""


class Preset(Model):
    """A released model: where it is, what it is made of, what it can do."""

    name: str
    """What users call it."""

    title: str
    """One line for listings."""

    generation: Literal["v1", "v2", "v3", "v4", "v5", "v5.1"]
    """Family of the architecture."""

    task: Literal["text-to-image", "text-to-video", "image-to-video", "control", "camera"]
    """What it was trained for; what it can be given is in `inlets`."""

    huggingface: str | None = None
    """Repository on the Hugging Face hub."""

    modelscope: str | None = None
    """Repository on ModelScope."""

    diffusers: str | None = None
    """Repository on the Hugging Face hub with the same weights in the layout of diffusers' port."""

    url: str | None = None
    """Address of an archive of the released folder, as the original published it."""

    bundled: str | None = None
    """Weights inside a Python package, as `package:folder`."""

    disk_gb: Annotated[float, Field(gt=0), Hint(unit="GB")]
    """Size of the weights on disk in gigabytes (10⁹ bytes)."""

    languages: tuple[str, ...]
    """Languages of prompts, as ISO 639-1 codes; `mul` for many."""

    text_length: Annotated[int, Field(ge=1), Hint(unit="tokens")] | None = None
    """Tokens to which prompts are padded and cut; `None`: what each tokenizer says, at most 256."""

    latent_channels: Annotated[int, Field(ge=1)] | None = None
    """Channels of the VAE's latents; the denoiser reads them first and the inlets' after them. `None`: whatever the
    checkpoint has."""

    components: Components
    """What it is made of."""

    settings: Settings = Settings()
    """What the release's `config.json` files leave out or say wrongly."""

    float16: Settings = Settings()
    """Further settings where weights are float16, which overflows in places where bfloat16 does not."""

    samplers: tuple[str, ...] = Field(min_length=1)
    """Samplers that fit how it was trained, by registered name."""

    defaults: Defaults
    """What a request gets where it says nothing."""

    limits: Limits
    """What it can do."""

    inlets: tuple[Inlet, ...] = ()
    """Sockets for conditions, in the checkpoint's channel order."""

    teacache: Annotated[tuple[float, ...], Field(min_length=5, max_length=5)] | None = None
    """Coefficients of TeaCache's polynomial of degree 4, highest power first; `None` where none were fitted."""

    negative_prompts: Mapping[str, str] = Field(default_factory=dict)
    """Negative prompts known to work, by language."""

    examples: tuple[str, ...] = ()
    """Prompts that show what it can do."""

    extras: tuple[Extra, ...] = ()
    """Files that are released beside it."""

    @property
    def in_channels(self) -> int | None:
        """Channels of the denoiser's input, latents and all channel inlets; `None` when the checkpoint decides."""
        if self.latent_channels is None:
            return None
        return self.latent_channels + sum(inlet.width for inlet in self.inlets if inlet.kind == "channels")

    def settings_of(
        self, component: Literal["text_encoder", "denoiser", "vae", "sampler"], *, half: bool
    ) -> dict[str, Any]:
        """Settings above those of the checkpoint.

        Args:
            component: a field of `Settings`.
            half: its weights are float16.
        """
        tables = (self.settings, self.float16) if half else (self.settings,)
        return {name: value for table in tables for name, value in getattr(table, component).items()}

    def bundled_path(self) -> Path | None:
        """Folder of the weights inside a package; `None` when the model does not come with one.

        Raises:
            CheckpointNotFound: the package should have it and has not.
        """
        if self.bundled is None:
            return None
        package, _, folder = self.bundled.partition(":")
        path = Path(str(importlib.resources.files(package))) / folder
        if not path.is_dir():
            raise CheckpointNotFound(f"the weights of '{self.name}' are not at '{path}'", f"Reinstall '{package}'.")
        return path

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        """The request with everything decided: defaults filled in, a seed drawn.

        Size and frames stay as they were asked for; `Limits` and the VAE round them. With a `resolution`, the size
        stays open until the reference is read. Of the sampler's options only
        those in `Choice.given` were said; the checkpoint decides the others.

        Raises:
            InvalidRequest: size, frames, sampler or a step cache are not for this model.
        """
        chosen = request.sampler or Choice.of(SAMPLERS, self.defaults.sampler)
        # A plugin's sampler says itself what it was made for: presets cannot know it.
        made_for = active().registries[SAMPLERS].get(chosen.qualified).tags
        if chosen.name not in self.samplers and f"generation:{self.generation}" not in made_for:
            raise InvalidRequest(
                f"the model '{self.name}' cannot use the sampler '{chosen.name}'",
                f"It was trained for: {', '.join(self.samplers)}.",
            )
        size, frames = request.size or self.defaults.size, request.frames or self.defaults.frames
        if request.resolution is None:
            self.limits.fit(size)
        elif request.size is not None:
            raise InvalidRequest(
                f"'size' is '{request.size}' and 'resolution' is '{request.resolution}'", "Give one of them."
            )
        # A long video is as long as its segments are many; only they have a limit.
        self.limits.fit_frames(request.segment_frames or frames)
        given = self.defaults.model_dump(include={"fps", "steps", "guidance", "negative_prompt"})
        missing = {name: value for name, value in given.items() if getattr(request, name) is None}
        decided = {
            "size": size if request.resolution is None else None,
            "frames": frames,
            "sampler": chosen,
            "step_caches": tuple(self._with_coefficients(choice) for choice in request.step_caches),
        }
        update = {**missing, **decided}
        return request.seeded().model_copy(update=update)

    def _with_coefficients(self, choice: Choice[StepCache]) -> Choice[StepCache]:
        """A step cache with the coefficients that were fitted for this model, where it takes some and was given none.

        Raises:
            InvalidRequest: there are none.
        """
        options = choice.options
        if options is None or getattr(options, "coefficients", ()) is not None:
            return choice
        if self.teacache is None:
            raise InvalidRequest(
                f"there are no coefficients of '{choice.name}' for the model '{self.name}'",
                f"Use 'first-block' or 'easycache', which need none, or give 'coefficients'. They are known for: "
                f"{', '.join(_with_teacache())}.",
            )
        return replace(choice, options=type(options)(**{**choice.given, "coefficients": self.teacache}))


def _with_teacache() -> list[str]:
    """Models whose coefficients are known."""
    from easyanimate_core.presets.catalog import all_presets

    return [preset.name for preset in all_presets() if preset.teacache is not None]
