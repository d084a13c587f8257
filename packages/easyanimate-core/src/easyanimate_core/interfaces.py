"""Every contract that a component can sign: the plugin author's one file.

These are protocols, not base classes: sign one by having its members. `easyanimate_core.testing` checks
behaviour. Shapes follow the legend in `easyanimate_core.data`. Nothing here imports torch at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from easyanimate_core.keeping import KeepsNothing, Snapshot, Snapshots
from easyanimate_core.placing import (
    Footprint,
    Foretells,
    HasBlocks,
    Keep,
    KeepsAside,
    KeepsInFiles,
    KeepsSteady,
    LetsBlocksStay,
    Storage,
    StoresByLayer,
    TakesParts,
)
from easyanimate_core.sampling import NoiseProcess, Renoises, Sampler, SamplerState, Schedule
from easyanimate_core.stepping import (
    CacheMemory,
    CacheReport,
    DenoiserCall,
    KeepsTokens,
    Predict,
    ShowsChange,
    SplitsTrunk,
    StepCache,
)

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

    from easyanimate_core.checkpoints.header import Header
    from easyanimate_core.checkpoints.keymap import KeyMap
    from easyanimate_core.data import (
        Condition,
        Geometry,
        ImageEmbedding,
        Inlet,
        Inpainting,
        Origin,
        Reference,
        State,
        TextEmbedding,
    )
    from easyanimate_core.events import CancelToken, EventBus
    from easyanimate_core.request import GenerationRequest

__all__ = [
    "AttentionBackend",
    "AttentionCall",
    "CacheMemory",
    "CacheReport",
    "Compression",
    "Conditioner",
    "DeclaresInlets",
    "Denoiser",
    "DenoiserCall",
    "Footprint",
    "Foretells",
    "Format",
    "GivesOrigin",
    "HasBlocks",
    "HasReference",
    "ImageEncoder",
    "Inpaints",
    "Keep",
    "KeepsAside",
    "KeepsInFiles",
    "KeepsNothing",
    "KeepsSteady",
    "KeepsTokens",
    "LetsBlocksStay",
    "NoiseProcess",
    "OffloadStrategy",
    "Predict",
    "PreparesSteps",
    "Renoises",
    "Sampler",
    "SamplerState",
    "Schedule",
    "SeesPicture",
    "ShowsChange",
    "SmoothsSeams",
    "Snapshot",
    "Snapshots",
    "SplitsTrunk",
    "Stage",
    "StepCache",
    "Storage",
    "StoresByLayer",
    "StreamsFrames",
    "SupportsMaps",
    "SupportsTiling",
    "TakesParts",
    "TextEncoder",
    "Tokens",
    "Toolbox",
    "TranslatesConfig",
    "UsesAttention",
    "UsesBound",
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


class ImageEncoder(Protocol):
    """Pictures to tokens, for denoisers that attend to one."""

    def encode_image(self, pixels: Tensor) -> ImageEmbedding:
        """Encode pictures `(B, 3, H, W)` in 0…1 of any size, each on its own.

        Returns:
            tokens `(B, n, D)` and pooled `(B, P)`, in the encoder's dtype.
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


@runtime_checkable
class SeesPicture(Protocol):
    """Optional capability of a denoiser with the inlet `image_tokens`: says what of an encoded picture goes into it."""

    picture: Literal["tokens", "pooled"]
    """A field of `ImageEmbedding`; the pooled vector goes in as one token."""


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
class SmoothsSeams(Protocol):
    """Optional capability of a VAE whose runs of frames may not fit together: smooths finished videos."""

    def smoothed(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Runs of decoded frames `(B, 3, F', H, W)`, about −1…1, to as many frames, in runs of any length."""
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


@runtime_checkable
class UsesBound(Protocol):
    """Optional capability of an attention backend: is faster where the size of logits is bounded."""

    def within(self, bound: float) -> AttentionBackend:
        """A backend for calls without mask of which no logit is larger than `bound`, in nats, at the default scale."""
        ...


@runtime_checkable
class UsesAttention(Protocol):
    """Optional capability of a denoiser: its attention can be chosen."""

    def set_attention(self, backend: AttentionBackend) -> None:
        """Use this backend from now on, and tell it the bound of logits if it is a `UsesBound`."""
        ...


@runtime_checkable
class PreparesSteps(Protocol):
    """Optional capability of a denoiser: computes before the loop what does not depend on the latents."""

    def prepared(
        self, timesteps: Tensor, text: Sequence[TextEmbedding], dtype: torch.dtype
    ) -> Sequence[Denoiser] | None:
        """One denoiser for each step, for exactly this text; `None` where that cannot be done now.

        Args:
            timesteps: `(n,)` on the loop's device, exactly as `embed` will get them.
            text: as `embed` will get it, for the whole batch.
            dtype: of the latents.
        """
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
        image_encoder: for denoisers that attend to a picture; `None` for all others.
        attention: what the denoiser's attention was chosen to be, if that can be chosen; its text says what ran.
        apart: both halves of guidance run one after the other, for memory.
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
    image_encoder: ImageEncoder | None = None
    attention: AttentionBackend | None = None
    apart: bool = False

    def modules(self) -> dict[str, Any]:
        """Modules by role: `text`, `text_2`…, `image` where there is one, `denoiser`, `vae`."""
        text = {f"text_{i + 1}" if i else "text": encoder for i, encoder in enumerate(self.text_encoders)}
        image = {} if self.image_encoder is None else {"image": self.image_encoder}
        return {**text, **image, "denoiser": self.denoiser, "vae": self.vae}


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
