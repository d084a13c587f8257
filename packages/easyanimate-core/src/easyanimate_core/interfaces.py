"""Every contract that a component can sign: the plugin author's one file.

These are protocols, not base classes: sign one by having its members. `easyanimate_core.testing` checks
behaviour. Shapes follow the legend in `easyanimate_core.data`. Nothing here imports torch at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from easyanimate_core.keeping import KeepsNothing, Snapshot, Snapshots

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

    from easyanimate_core.checkpoints.header import Header
    from easyanimate_core.checkpoints.keymap import KeyMap
    from easyanimate_core.data import Condition, Geometry, Inlet, Inpainting, Origin, Reference, State, TextEmbedding
    from easyanimate_core.events import CancelToken, EventBus
    from easyanimate_core.request import GenerationRequest

__all__ = [
    "AttentionBackend",
    "AttentionCall",
    "Compression",
    "Conditioner",
    "DeclaresInlets",
    "Denoiser",
    "Format",
    "GivesOrigin",
    "HasReference",
    "Inpaints",
    "KeepsNothing",
    "NoiseProcess",
    "OffloadStrategy",
    "Renoises",
    "Sampler",
    "SamplerState",
    "Schedule",
    "Snapshot",
    "Snapshots",
    "Stage",
    "StreamsFrames",
    "SupportsMaps",
    "SupportsTiling",
    "TextEncoder",
    "Tokens",
    "Toolbox",
    "TranslatesConfig",
    "VideoVAE",
]


class TextEncoder(Protocol):
    """Prompts to hidden states."""

    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Encode each prompt on its own, padded to the encoder's length.

        Returns:
            states `(B, L, D)` in the encoder's dtype, mask `(B, L)`.
        """
        ...


class Tokens(Protocol):
    """What flows through a denoiser's trunk. A family adds its own fields; caches touch only `video`."""

    video: Tensor
    """`(B, S, D)`: the video tokens."""

    def replaced(self, video: Tensor) -> Tokens:
        """A copy with other video tokens."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """One network, cut at two seams: step caches and streaming offload work on `trunk`."""

    inlets: tuple[Inlet, ...]
    """What may be wired besides text, in channel order."""

    def embed(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Sequence[TextEmbedding],
        conditions: Mapping[str, Tensor],
    ) -> Tokens:
        """Latents `(B, C, f, h, w)`, timesteps `(B,)` in 0…1000, text and wired inlets to tokens."""
        ...

    def trunk(self, tokens: Tokens) -> Tokens:
        """All blocks and the final norms."""
        ...

    def head(self, tokens: Tokens) -> Tensor:
        """Tokens to a prediction `(B, C, f, h, w)`."""
        ...


@runtime_checkable
class DeclaresInlets(Protocol):
    """Optional capability of a denoiser whose checkpoint does not say what its input channels mean."""

    def declare(self, inlets: Sequence[Inlet]) -> None:
        """Say what the channels after the latents mean, in order.

        Raises:
            CheckpointMismatch: the widths do not add up to the checkpoint's input channels.
        """
        ...


@runtime_checkable
class Inpaints(Protocol):
    """Optional capability of a denoiser with the inlets `mask` and `masked_video`: says how they were trained.

    A denoiser with these inlets that does not have it gets what `Inpainting()` says.
    """

    inpainting: Inpainting


class Compression(Protocol):
    """How a VAE maps pixels to latents. The only owner of the latent-frame formula."""

    channels: int
    """Latent channels."""
    spatial: int
    """Pixels per latent pixel along each side."""

    def round_frames(self, frames: int) -> int:
        """The largest frame count ≤ `frames` that the VAE can encode and decode exactly; at least 1."""
        ...

    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int, int]:
        """`(B, C, f, h, w)` of the latents of a video of this size."""
        ...

    def latent_frames(self, frames: int) -> int:
        """Latent frames of `frames` pixel frames."""
        ...


@runtime_checkable
class VideoVAE(Protocol):
    """Pixels in −1…1 to scaled latents and back. Callers never see the scaling factor."""

    compression: Compression

    def encode_video(self, pixels: Tensor, *, generator: Generator | None = None) -> Tensor:
        """`(B, 3, F, H, W)` in −1…1 to scaled latents `(B, C, f, h, w)`.

        The posterior's mode, or a sample of it when a generator is given.
        """
        ...

    def decode_video(self, latents: Tensor) -> Tensor:
        """Scaled latents to `(B, 3, F, H, W)`, about −1…1, not clamped."""
        ...

    def decode_stream(self, latents: Tensor) -> Iterator[Tensor]:
        """As `decode_video`, chunk by chunk along time; joined chunks equal the whole."""
        ...


@runtime_checkable
class SupportsTiling(Protocol):
    """Optional capability of a VAE: bounded memory by overlapping spatial tiles."""

    def set_tiling(self, enabled: bool) -> None:
        """Encode and decode large frames tile by tile."""
        ...


@runtime_checkable
class SupportsMaps(Protocol):
    """Optional capability of a VAE: brings maps that are no pictures (masks, camera rays) to its latents' grid."""

    def resize_map(self, pixels: Tensor, size: tuple[int, int, int], *, scaled: bool = False) -> Tensor:
        """`(B, C, F, H, W)` to `(B, C, f, h, w)` by interpolation; along time as the VAE groups frames.

        Args:
            pixels: the map, any values.
            size: `(f, h, w)` of the latents.
            scaled: multiply by the factor that latents are scaled with, as a mask channel has been in training.
        """
        ...


class NoiseProcess(Protocol):
    """How data becomes noise; shared by samplers and training objectives."""

    def add_noise(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Noised data at level(s) of noise `(B,)`."""
        ...

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """What the denoiser should predict there."""
        ...

    def weight(self, level: Tensor) -> Tensor:
        """Weight `(B,)` of the squared error there."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of one run.

    Attributes:
        timesteps: `(n,)` float32, exact values on the model's 0…1000 scale, first step first.
        start: steps skipped at the front when `strength` is below 1.
    """

    timesteps: Tensor
    start: int = 0

    def __len__(self) -> int:
        return int(self.timesteps.shape[0])


class Sampler(Protocol):
    """Steps noise towards latents. One instance serves one run at a time; `schedule` resets it."""

    process: NoiseProcess

    def schedule(self, steps: int, *, strength: float = 1.0) -> Schedule:
        """Prepare a run of `steps` steps, of which the last `int(steps·strength)` are taken."""
        ...

    def begin(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        """Initial latents from unit noise, and from clean latents when strength is below 1."""
        ...

    def scale_input(self, latents: Tensor, index: int) -> Tensor:
        """Latents as the denoiser wants to see them at step `index`."""
        ...

    def step(self, prediction: Tensor, index: int, latents: Tensor, *, generator: Generator | None = None) -> Tensor:
        """One step from latents at step `index` to the next."""
        ...


@runtime_checkable
class SamplerState(Protocol):
    """Optional capability of a sampler: what it remembers between steps, so that a run can go on in the middle.

    A run whose sampler cannot do this starts its denoising anew after an interruption.
    """

    def remembered(self) -> Mapping[str, Tensor]:
        """Everything that later steps depend on besides latents and index; empty when that is nothing."""
        ...

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from what `remembered` gave, after `schedule` with the same arguments."""
        ...


@runtime_checkable
class Renoises(Protocol):
    """Optional capability of a sampler: clean latents as they would be in the middle of a run."""

    def renoise(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Clean latents `(B, C, f, h, w)` with unit noise at the level before step `index`.

        At `len(schedule)`, after the last step, these are the clean latents themselves.
        """
        ...


class OffloadStrategy(Protocol):
    """Where weights are while they are not used."""

    def attach(self, toolbox: Toolbox, device: torch.device) -> None:
        """Take charge of the toolbox's modules."""
        ...

    def using(self, *roles: str) -> AbstractContextManager[None]:
        """Inside, the modules of these roles (`text`, `denoiser`, `vae`) can run on the device."""
        ...

    def detach(self) -> None:
        """Give the modules back as they were found."""
        ...


class Conditioner(Protocol):
    """Turns something that the user gave into conditions for inlets."""

    def inlets(self) -> tuple[str, ...]:
        """Names of the inlets that `encode` feeds."""
        ...

    def encode(self, state: State, toolbox: Toolbox) -> tuple[Condition, ...]:
        """Conditions for this run; may use the toolbox's VAE."""
        ...


@runtime_checkable
class GivesOrigin(Protocol):
    """Optional capability of a conditioner: says what sampling starts from besides noise."""

    def origin(self, state: State, toolbox: Toolbox) -> Origin | None:
        """The origin of this run, or `None`; may use the toolbox's VAE. Asked for once, after `encode`."""
        ...


@runtime_checkable
class HasReference(Protocol):
    """Optional capability of a conditioner: knows the size of what it was given before weights are read."""

    def reference(self, request: GenerationRequest) -> Reference | None:
        """The size of the picture or video; `None` when there is none.

        Args:
            request: complete but for its size.

        Raises:
            UnreadableMedia: a file is missing, damaged, or no picture or video.
            InvalidRequest: what was given does not fit the request.
        """
        ...


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What an attention backend is asked for: shapes and types, no tensors."""

    head_dim: int
    length: int
    dtype: str
    device: str
    masked: bool = False


class AttentionBackend(Protocol):
    """Scaled dot-product attention."""

    def supports(self, call: AttentionCall) -> str | None:
        """`None` when this backend can run the call, else the reason why not."""
        ...

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`(B, N, L, D)` each to `(B, N, L, D)`."""
        ...


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The components of one pipeline, as stages see them.

    Attributes:
        text_encoders: in the order in which the denoiser wants their embeddings.
        negative_prompt: what the model's preset suggests for the unguided half.
        dtype: of latents and embeddings in the loop.
        device: where stages compute.
        snapshots: where stages keep what they should not have to do twice.
    """

    text_encoders: tuple[TextEncoder, ...]
    denoiser: Denoiser
    vae: VideoVAE
    sampler: Sampler
    offload: OffloadStrategy
    device: torch.device
    dtype: torch.dtype
    events: EventBus
    cancel: CancelToken
    negative_prompt: str = ""
    snapshots: Snapshots = field(default_factory=KeepsNothing)

    def modules(self) -> dict[str, Any]:
        """Modules by role: `text`, `text_2`…, `denoiser`, `vae`."""
        text = {f"text_{i + 1}" if i else "text": encoder for i, encoder in enumerate(self.text_encoders)}
        return {**text, "denoiser": self.denoiser, "vae": self.vae}


class Format(Protocol):
    """A layout of checkpoint files: recognises components and says how their tensors become a module's."""

    def match(self, header: Header) -> float | None:
        """How surely these tensors are in this layout, from 0 to 1; `None` when they are not.

        The best score wins; an exact layout that cannot be taken for another says 1. Looks at names, shapes,
        metadata and config only.
        """
        ...

    def keymap(self, header: Header) -> KeyMap:
        """From stored names to the module's; called only after `match`."""
        ...


@runtime_checkable
class TranslatesConfig(Protocol):
    """Optional capability of a format whose `config.json` differs from what our modules take."""

    def config(self, header: Header) -> dict[str, Any]:
        """The settings of `header.config` as our modules take them."""
        ...


class Stage(Protocol):
    """One step of a plan."""

    name: str
    needs: frozenset[str]
    """Fields of the state that must be filled before."""
    gives: frozenset[str]
    """Fields that the stage fills."""
    uses: tuple[str, ...]
    """Roles of the toolbox whose modules run."""

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """The state after this stage."""
        ...


@runtime_checkable
class StreamsFrames(Protocol):
    """Optional capability of a stage after `decode`: it can work while frames pass, without holding the clip."""

    def stream(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Runs of frames `(B, 3, F', H, W)` in 0…1, in order; joined they equal what the stage makes of the whole."""
        ...
