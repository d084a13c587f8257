"""What flows through a run: geometry, text, inlets and conditions, state, video.

Legend of tensor shapes, used all over the SDK:
`B` batch · `F` frames · `f` latent frames · `H W` pixels · `h w` latent pixels · `C` channels ·
`L` text tokens · `S` video tokens · `N` heads · `D` width.

Nothing here imports torch at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from easyanimate_core.errors import IncompatibleConditions

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from easyanimate_core.request import GenerationRequest

__all__ = [
    "Condition",
    "Geometry",
    "ImageEmbedding",
    "Inlet",
    "Inpainting",
    "Origin",
    "Reference",
    "State",
    "TextEmbedding",
    "Video",
    "wire",
]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size of the video in pixels: `frames` × `height` × `width`, `batch` samples at a time."""

    height: int
    width: int
    frames: int
    batch: int = 1


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """Encoded prompts of one text encoder.

    Attributes:
        states: `(B, L, D)` hidden states, padding included.
        mask: `(B, L)` int64, 1 for tokens of the prompt, 0 for padding.
    """

    states: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class ImageEmbedding:
    """Encoded pictures of an image encoder.

    Attributes:
        tokens: `(B, n, D)`, one per patch, n a square number.
        pooled: `(B, P)`, one vector for the whole picture.
    """

    tokens: Tensor
    pooled: Tensor


@dataclass(frozen=True, slots=True)
class Inlet:
    """A named socket of a denoiser, in the order in which the checkpoint was trained.

    Attributes:
        name: what the condition is called, for example `"mask"` or `"camera"`.
        kind: `channels` are concatenated to the latents, `tokens` to the text, `text` replaces a
            prompt, `vector` is added to the time embedding.
        width: channels (or features) that the checkpoint expects; 0 in a preset's `tokens`: as wide as its weights are.
        optional: an empty optional channel inlet is filled with zeros.
    """

    name: str
    kind: Literal["channels", "tokens", "text", "vector"]
    width: int
    optional: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """What a conditioner made for one inlet.

    Attributes:
        inlet: name of the inlet.
        value: for channels `(B, width, f, h, w)`, for tokens `(B, L, width)`, for vectors `(B, width)`.
        unconditional: value for the unguided half of classifier-free guidance; `value` when `None`.
        active: share of the run, from 0 to 1, in which the condition applies: at step i of n when i/n is at least the
            first number and less than the second.
    """

    inlet: str
    value: Tensor
    unconditional: Tensor | None = None
    active: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Inpainting:
    """How a checkpoint was trained to fill in hidden pixels: what its inlets `mask` and `masked_video` hold.

    Attributes:
        mask: `resized` puts the mask itself into the inlet, brought to the latents' grid and scaled as they are,
            1 where pixels are known; `encoded` encodes it as if it were a video, 1 where they are hidden.
        noised: known pixels carry a little noise.
        blank: where everything is hidden, both inlets are zeros.
    """

    mask: Literal["resized", "encoded"] = "resized"
    noised: bool = False
    blank: bool = True


@dataclass(frozen=True, slots=True)
class Origin:
    """Clean latents that sampling starts from, or keeps in places.

    Attributes:
        latents: `(1 or B, C, f, h, w)`, scaled and clean.
        strength: how much of the schedule runs, from 0 (nothing) to 1 (all of it, from pure noise).
        redraw: `(1 or B, 1, f, h, w)`, 1 where the result is new and 0 where it stays as `latents`, blended in
            at every step; everything is new when `None`.
    """

    latents: Tensor
    strength: float = 1.0
    redraw: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """Size of the pictures or the video that a condition was given.

    Attributes:
        height: in pixels.
        width: in pixels.
        frames: how many there are at the request's frame rate, for a condition that needs a picture for every frame
            of the result; `None` when any length goes.
        notice: what the user should know about it, in one sentence.
    """

    height: int
    width: int
    frames: int | None = None
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Video:
    """Finished frames.

    Attributes:
        frames: `(B, 3, F, H, W)` float32 in 0…1 on the CPU.
        fps: frames per second.
        notes: what a writer should keep beside the pixels; JSON-able.
    """

    frames: Tensor
    fps: float
    notes: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the first sample as `.mp4`, `.gif` or, for one frame, `.png`; returns the path.

        Raises:
            MediaError: the suffix is unknown, the file exists, or the folder is not writable.
        """
        from easyanimate_core.media.write import write_video

        return write_video(self, path, overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class State:
    """Everything known at one point of a run. A stage returns a new state; nothing is mutated.

    Attributes:
        request: what was asked.
        geometry: the size after rounding to what the model can do.
        text: one embedding per text encoder of the model; empty before `encode_text`.
        negative_text: the same for the negative prompt; empty when guidance is off.
        conditions: what conditioners made.
        origin: what sampling starts from besides noise; `None` is noise alone.
        latents: `(B, C, f, h, w)`, noise before and samples after `denoise`.
        video: the result of `decode`.
        notes: side information of stages, JSON-able, kept in the manifest.
    """

    request: GenerationRequest
    geometry: Geometry
    text: tuple[TextEmbedding, ...] = ()
    negative_text: tuple[TextEmbedding, ...] = ()
    conditions: tuple[Condition, ...] = ()
    origin: Origin | None = None
    latents: Tensor | None = None
    video: Video | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def with_(self, **changes: Any) -> State:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def noted(self, **notes: Any) -> State:
        """A copy with side information added."""
        return replace(self, notes={**self.notes, **notes})


def wire(
    inlets: Sequence[Inlet],
    conditions: Sequence[Condition],
    latents: Tensor,
    *,
    progress: float = 0.0,
    unconditional: bool = False,
) -> dict[str, Tensor]:
    """Match conditions to a denoiser's inlets.

    Args:
        inlets: what the checkpoint was trained with, in its channel order.
        conditions: what conditioners made; at most one per inlet.
        latents: `(B, C, f, h, w)`; gives batch, grid, dtype and device of empty channel inlets.
        progress: share of the run that is done before the step: i/n at step i of n.
        unconditional: take each condition's unguided value.

    Returns:
        Values by inlet name in inlet order. Empty or inactive optional channel inlets are zeros; empty
        inlets of other kinds are left out.

    Raises:
        IncompatibleConditions: a condition without inlet, a width that differs, two conditions for one
            inlet, or a required inlet that stays empty.
    """
    by_name: dict[str, Condition] = {}
    known = {inlet.name for inlet in inlets}
    for condition in conditions:
        if condition.inlet not in known:
            names = ", ".join(["text", *(inlet.name for inlet in inlets)])
            raise IncompatibleConditions(
                f"this model has no inlet '{condition.inlet}' (it has: {names})",
                "Pick a checkpoint trained with that condition.",
            )
        if condition.inlet in by_name:
            raise IncompatibleConditions(f"two conditions feed the inlet '{condition.inlet}'", "Give it only one.")
        by_name[condition.inlet] = condition

    wired: dict[str, Tensor] = {}
    for inlet in inlets:
        found = by_name.get(inlet.name)
        if found is not None and not found.active[0] <= progress < found.active[1]:
            found = None
        if found is None:
            if not inlet.optional:
                raise IncompatibleConditions(
                    f"the inlet '{inlet.name}' is empty, and this model needs it",
                    f"Add a condition for '{inlet.name}'.",
                )
            if inlet.kind == "channels":
                b, _, f, h, w = latents.shape
                wired[inlet.name] = latents.new_zeros((b, inlet.width, f, h, w))
            continue
        value = found.unconditional if unconditional and found.unconditional is not None else found.value
        width = value.shape[1] if inlet.kind in ("channels", "vector") else value.shape[-1]
        if width != inlet.width:
            raise IncompatibleConditions(
                f"the condition for '{inlet.name}' has width {width}; this model expects {inlet.width}",
                "Check that checkpoint and condition belong together.",
            )
        if value.shape[0] != latents.shape[0]:
            value = value.repeat_interleave(latents.shape[0] // value.shape[0], dim=0)
        wired[inlet.name] = value.to(device=latents.device, dtype=latents.dtype)
    return wired
