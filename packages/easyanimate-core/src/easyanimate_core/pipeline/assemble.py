"""Preset and weights to a toolbox, through the registries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import torch
from torch import nn

from easyanimate_core.checkpoints.hub import Repo, cached
from easyanimate_core.checkpoints.source import component_files, component_folder, resolve
from easyanimate_core.data import Inlet
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound, InvalidRequest
from easyanimate_core.events import SILENT, CancelToken, EventBus, StageProgress
from easyanimate_core.interfaces import (
    DeclaresInlets,
    Denoiser,
    ImageEncoder,
    OffloadStrategy,
    Sampler,
    Storage,
    TextEncoder,
    Toolbox,
    VideoVAE,
)
from easyanimate_core.pipeline.belonging import check_belongs, check_complete, check_motion
from easyanimate_core.pipeline.components import (
    build_denoiser,
    build_image_encoder,
    build_sampler,
    build_text_encoder,
    build_vae,
)
from easyanimate_core.placing import Keep, KeepsInFiles, StoresByLayer, TakesParts
from easyanimate_core.presets import Preset
from easyanimate_core.schema import Choice
from easyanimate_core.slots import SAMPLERS

__all__ = ["Assembly", "locate", "pick_device", "pick_dtype", "repos_of"]

T = TypeVar("T")

_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Assembly:
    """All that is decided before weights are read.

    Attributes:
        preset: what the model is.
        folder: the checkpoint in its released layout.
        offload: where weights will be while they are not used.
        storage: in which type they will be kept.
        device: where to compute.
        dtype: of weights and latents.
        transformer_path: file or folder of another denoiser.
        vae_path: file or folder of another VAE.
        motion_path: file or folder of the motion module beside the denoiser's other weights.
        config: the original's model config whose settings the preset has been given.
    """

    preset: Preset
    folder: Path
    offload: Choice[OffloadStrategy]
    storage: Choice[Storage]
    device: torch.device
    dtype: torch.dtype
    transformer_path: Path | None = None
    vae_path: Path | None = None
    motion_path: Path | None = None
    config: Path | None = None

    def check(self) -> None:
        """Prove that the folder has everything that the preset names; reads nothing large.

        Raises:
            CheckpointNotFound: a component is missing.
            CheckpointMismatch: it is the checkpoint of another preset.
            UnsafeCheckpoint: a link or an index of another component leads out of its folder.
        """
        denoisers = (self.transformer_path, "transformer"), (self.motion_path, "transformer")
        for path, part in (*denoisers, (self.vae_path, "vae")):
            if path is not None:
                component_files(path, part)
        if self.transformer_path is None:
            check_belongs(self.preset, self.folder)
        check_complete(self.preset, self.folder)
        if self.transformer_path is None and self.motion_path is None:
            check_motion(self.preset, self.folder)

    def build(self, events: EventBus = SILENT) -> Toolbox:
        """Load all components strictly and place them.

        Raises:
            CheckpointError: something does not fit.
        """
        components, storage, offload = self.preset.components, self.storage.create(), self.offload.create()
        total = len(components.text_encoders) + 2 + bool(components.image_encoder)
        done = iter(range(1, total + 1))
        keep = offload.keeper(self.device) if isinstance(offload, KeepsInFiles) else None

        def kept(role: str, module: T, place: str = "") -> T:
            if keep is not None and isinstance(storage, StoresByLayer):
                storage.store_by_layer(role, module, keep)
            else:
                storage.store(role, module)
            if isinstance(offload, TakesParts) and isinstance(module, nn.Module):
                offload.take(place or role, module, self.device)
            events.emit(StageProgress("load", next(done), total, "components"))
            return module

        text = tuple(
            kept("text", encoder, f"text_{i + 1}" if i else "text")
            for i, encoder in enumerate(self._text_encoders(keep))
        )
        image = kept("image", found) if (found := self._image_encoder(keep)) is not None else None
        denoiser = kept("denoiser", self._denoiser(events, keep))
        vae = kept("vae", self.vae(events, keep))
        toolbox = Toolbox(
            text_encoders=text,
            denoiser=denoiser,
            vae=vae,
            sampler=self.sampler(Choice.of(SAMPLERS, self.preset.defaults.sampler)),
            offload=offload,
            device=self.device,
            dtype=self.dtype,
            events=SILENT,
            cancel=CancelToken(),
            negative_prompt=self.preset.defaults.negative_prompt,
            image_encoder=image,
        )
        toolbox.offload.attach(toolbox, self.device)
        return toolbox

    def sampler(self, choice: Choice[Sampler]) -> Sampler:
        """The sampler with the checkpoint's options and, above them, those of the preset, then those of the choice.

        Raises:
            CheckpointError: the checkpoint's scheduler config does not fit.
        """
        return build_sampler(choice, self._part("scheduler"), self._settings("sampler"))

    def _settings(self, component: Literal["text_encoder", "denoiser", "vae", "sampler"]) -> dict[str, Any]:
        """What the preset says above the checkpoint's config."""
        return self.preset.settings_of(component, half=self.dtype == torch.float16)

    def _part(self, name: str) -> Path:
        """Folder of a component."""
        (place,) = component_folder(self.folder, name)
        return place

    def _text_folders(self) -> Iterator[tuple[str, str]]:
        """Folders of weights and tokenizer: `text_encoder` and `tokenizer`, then `text_encoder_2`…"""
        for i in range(len(self.preset.components.text_encoders)):
            suffix = f"_{i + 1}" if i else ""
            yield f"text_encoder{suffix}", f"tokenizer{suffix}"

    def _text_encoders(self, keep: Keep | None) -> Iterator[TextEncoder]:
        for name, folders in zip(self.preset.components.text_encoders, self._text_folders(), strict=True):
            weights, tokenizer = (self._part(folder) for folder in folders)
            length, settings = self.preset.text_length, self._settings("text_encoder")
            yield build_text_encoder(
                name, weights, tokenizer, max_length=length, dtype=self.dtype, settings=settings, keep=keep
            )

    def _image_encoder(self, keep: Keep | None) -> ImageEncoder | None:
        name = self.preset.components.image_encoder
        if name is None:
            return None
        return build_image_encoder(name, self._part("image_encoder"), dtype=self.dtype, keep=keep)

    def _denoiser(self, events: EventBus, keep: Keep | None) -> Denoiser:
        name, folder = self.preset.components.denoiser, self._part("transformer")
        given: dict[str, Any] = {"path": self.transformer_path, "motion_path": self.motion_path, "keep": keep}
        settings = self._settings("denoiser")
        denoiser = build_denoiser(name, folder, dtype=self.dtype, **given, settings=settings, events=events)
        if isinstance(denoiser, DeclaresInlets):
            denoiser.declare(self.preset.inlets)
        elif (own := _names(denoiser.inlets)) != (wanted := _names(self.preset.inlets)):
            raise CheckpointMismatch(f"the denoiser has the inlets '{own}', the preset says '{wanted}'")
        return denoiser

    def vae(self, events: EventBus = SILENT, keep: Keep | None = None) -> VideoVAE:
        """The VAE by itself, on the CPU: all that decoding needs; `keep` gets its weights as they are read.

        Raises:
            CheckpointError: something does not fit.
        """
        name, folder = self.preset.components.vae, self._part("vae")
        settings = self._settings("vae")
        given: dict[str, Any] = {"path": self.vae_path, "keep": keep}
        vae = build_vae(name, folder, dtype=self.dtype, **given, settings=settings, events=events)
        if self.preset.latent_channels not in (None, vae.compression.channels):
            raise CheckpointMismatch(
                f"the VAE in '{self.folder}' has {vae.compression.channels} latent channels, "
                f"the preset '{self.preset.name}' says {self.preset.latent_channels}",
                "Choose the preset that belongs to this checkpoint (easyanimate presets list).",
            )
        return vae


def _names(inlets: tuple[Inlet, ...]) -> str:
    """Inlets for a message."""
    return ", ".join(inlet.name for inlet in inlets)


def locate(preset: Preset, weights: str | Path | None) -> Path:
    """The checkpoint's folder: where the user says, inside the package that brings it, or in a cache of downloads.

    Asks no network.

    Raises:
        CheckpointNotFound: it is nowhere.
    """
    if weights is not None:
        return resolve(weights)
    if (bundled := preset.bundled_path()) is not None:
        return bundled
    for repo in repos_of(preset):
        if (found := cached(repo)) is not None:
            return found
    where = preset.huggingface or preset.modelscope
    raise CheckpointNotFound(
        f"the model '{preset.name}' needs its weights ({preset.disk_gb:g} GB)",
        f"Download it from '{where}': easyanimate models pull {preset.name}"
        if where
        else "Give its folder: weights=FOLDER, or --weights FOLDER.",
    )


def repos_of(preset: Preset) -> tuple[Repo, ...]:
    """Where a model can be downloaded, Hugging Face first."""
    hubs = (("huggingface", preset.huggingface), ("modelscope", preset.modelscope))
    return tuple(Repo(hub, name) for hub, name in hubs if name)


def pick_device(wanted: str | torch.device | None = None) -> torch.device:
    """The device that is asked for, else the first CUDA device, else the CPU.

    Raises:
        InvalidRequest: torch does not know such a device, or it is not here.
    """
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        # Only using a device tells whether it is there.
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InvalidRequest(f"the device '{wanted}' cannot be used: {first}", "See: easyanimate doctor.") from error
    return device


def pick_dtype(wanted: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype that is asked for, else bfloat16 on a GPU that has it, float16 on one that has not, float32 elsewhere.

    Raises:
        InvalidRequest: no such dtype can be computed in.
    """
    if isinstance(wanted, torch.dtype):
        wanted = str(wanted).removeprefix("torch.")
    if wanted is not None:
        if wanted not in _DTYPES:
            raise InvalidRequest(f"the dtype '{wanted}' cannot be used", f"Choose one of: {', '.join(_DTYPES)}.")
        return _DTYPES[wanted]
    if device.type != "cuda":
        return torch.float32
    with torch.cuda.device(device):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
