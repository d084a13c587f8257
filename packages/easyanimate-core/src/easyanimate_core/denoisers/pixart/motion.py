"""Motion modules: attention between frames, put between the layers of an image model.

Source: AnimateDiff (Guo et al., 2023), section 4.2, for attention over time at each place; EasyAnimate (Xu et al.,
2024), sections 2.2 and 2.3, for blocks of places (V1) and for attention over the whole video (V3).

Which tokens see each other is one object, a `Reach`, chosen when the module is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from easyanimate_core.denoisers.pixart.attention import Attention
from easyanimate_core.errors import CheckpointMismatch, InvalidRequest

__all__ = ["EveryFrame", "Everywhere", "MotionModule", "MotionOptions", "Reach"]

_GROUPS: Final = 32


class Reach(Protocol):
    """Which tokens of a video see each other: cuts a video into sequences and puts it together again."""

    def gather(self, x: Tensor) -> Tensor:
        """`(B, f, h, w, D)` to sequences `(B', L, D)`."""
        ...

    def scatter(self, sequences: Tensor, shape: torch.Size) -> Tensor:
        """Sequences `(B', L, D)` to the video `shape = (B, f, h, w, D)` that they were cut from."""
        ...


@dataclass(frozen=True, slots=True)
class EveryFrame:
    """A place sees itself in every frame; with `block > 1`, all places of its block × block square in every frame."""

    block: int = 1

    def gather(self, x: Tensor) -> Tensor:
        """`(B, f, h, w, D)` to `(B·h/n·w/n, f·n·n, D)` with `n = block`.

        Raises:
            InvalidRequest: height and width cannot be cut into blocks.
        """
        height, width = x.shape[2:4]
        if height % self.block or width % self.block:
            raise InvalidRequest(
                f"'{height}x{width}' patches cannot be cut into blocks of {self.block}x{self.block}",
                f"Choose height and width in multiples of {16 * self.block} pixels.",
            )
        cut = x.unflatten(3, (-1, self.block)).unflatten(2, (-1, self.block))
        sequences: Tensor = cut.permute(0, 2, 4, 1, 3, 5, 6).flatten(3, 5).flatten(0, 2)
        return sequences

    def scatter(self, sequences: Tensor, shape: torch.Size) -> Tensor:
        """The way back."""
        batch, frames, height, width, _ = shape
        n = self.block
        cut = sequences.unflatten(1, (frames, n, n)).unflatten(0, (batch, height // n, width // n))
        video: Tensor = cut.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
        return video


@dataclass(frozen=True, slots=True)
class Everywhere:
    """All tokens of the video see each other."""

    def gather(self, x: Tensor) -> Tensor:
        """`(B, f, h, w, D)` to `(B, f·h·w, D)`."""
        return x.flatten(1, 3)

    def scatter(self, sequences: Tensor, shape: torch.Size) -> Tensor:
        """The way back."""
        video: Tensor = sequences.unflatten(1, shape[1:4])
        return video


@dataclass(frozen=True, slots=True)
class MotionOptions:
    """`motion_module_kwargs` of a released config; the defaults are those of V1, whose config has none.

    Attributes:
        num_attention_heads: heads of each attention.
        num_transformer_block: blocks of a module.
        attention_block_types: per attention of a block, `Temporal_Self` or `Global_Self`.
        temporal_position_encoding: whether frames are numbered.
        temporal_position_encoding_max_len: how many frames there are numbers for.
        temporal_attention_dim_div: the module's width is that of the tokens divided by this.
        block_size: side of the squares that `VanillaGrid` attends over.
        remove_time_embedding_in_photo: a single frame is not numbered.
    """

    num_attention_heads: int = 8
    num_transformer_block: int = 1
    attention_block_types: tuple[str, ...] = ("Temporal_Self", "Temporal_Self")
    temporal_position_encoding: bool = True
    temporal_position_encoding_max_len: int = 4096
    temporal_attention_dim_div: int = 1
    block_size: int = 2
    remove_time_embedding_in_photo: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> MotionOptions:
        """The options of a config's entry.

        Raises:
            CheckpointMismatch: it has a key that no release has.
        """
        given = dict(config or {})
        if unknown := sorted(given.keys() - set(cls.__slots__)):
            raise CheckpointMismatch(
                f"the config's motion module sets '{unknown[0]}' to '{given[unknown[0]]}', which no release does",
                f"Known: {', '.join(cls.__slots__)}.",
            )
        return cls(**given)

    def reaches(self, kind: Literal["Vanilla", "VanillaGrid"]) -> tuple[Reach, ...]:
        """What each attention of a block sees.

        Raises:
            CheckpointMismatch: a type of module or attention that no release has.
        """
        sizes = {"Vanilla": 1, "VanillaGrid": self.block_size}
        if kind not in sizes:
            raise CheckpointMismatch(
                f"the config's motion module is '{kind}', which no release has", f"Known: {', '.join(sizes)}."
            )
        known: dict[str, Reach] = {"Temporal_Self": EveryFrame(sizes[kind]), "Global_Self": Everywhere()}
        if other := next((name for name in self.attention_block_types if name not in known), None):
            raise CheckpointMismatch(
                f"the config's motion module has attention of type '{other}'", f"Known: {', '.join(known)}."
            )
        return tuple(known[name] for name in self.attention_block_types)


class _FrameNumbers(nn.Module):
    """Adds to every frame of `(B, f, h, w, D)` the row of its number; the table is stored with the weights."""

    pe: Tensor

    def __init__(self, width: int, length: int, *, number_photos: bool) -> None:
        super().__init__()
        angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("pe", torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[None])
        self.number_photos = number_photos

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[1]
        return x + self.pe[:, :frames, None, None] if frames > 1 or self.number_photos else x


class _MotionAttention(Attention):
    """Self attention of a video `(B, f, h, w, D)` within a reach. Numbers reach query, key and value alike."""

    def __init__(self, width: int, options: MotionOptions, reach: Reach) -> None:
        super().__init__(width, options.num_attention_heads, bias=False)
        length, everywhere = options.temporal_position_encoding_max_len, not options.remove_time_embedding_in_photo
        self.pos_encoder = (
            _FrameNumbers(width, length, number_photos=everywhere) if options.temporal_position_encoding else None
        )
        self.reach = reach

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        numbered = x if self.pos_encoder is None else self.pos_encoder(x)
        sequences = self.reach.gather(numbered)
        return self.reach.scatter(self.attend(sequences, sequences), x.shape)


class _MotionBlock(nn.Module):
    """Attentions one after the other, then a feed-forward; each adds to what it is given."""

    def __init__(self, width: int, options: MotionOptions, reaches: tuple[Reach, ...]) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(_MotionAttention(width, options, reach) for reach in reaches)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in reaches)
        self.ff = FeedForward(width, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x))
        y: Tensor = x + self.ff(self.ff_norm(x))
        return y


class _MotionTransformer(nn.Module):
    """What a motion module adds to `(B, f, h, w, D)`."""

    def __init__(self, width: int, options: MotionOptions, reaches: tuple[Reach, ...]) -> None:
        super().__init__()
        inner = width // options.temporal_attention_dim_div
        self.norm = nn.GroupNorm(_GROUPS, width, eps=1e-6)
        self.proj_in = nn.Linear(width, inner)
        self.transformer_blocks = nn.ModuleList(
            _MotionBlock(inner, options, reaches) for _ in range(options.num_transformer_block)
        )
        self.proj_out = nn.Linear(inner, width)
        # A fresh module changes nothing, so that training starts from the image model.
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        # Statistics are those of one frame: group norm wants (frames of all samples, D, places).
        frames = self.norm(x.flatten(0, 1).flatten(1, 2).transpose(1, 2)).transpose(1, 2)
        y: Tensor = self.proj_in(frames).reshape(*x.shape[:4], -1)
        for block in self.transformer_blocks:
            y = block(y)
        out: Tensor = self.proj_out(y)
        return out


class MotionModule(nn.Module):
    """Lets the frames of a video know of each other.

    Args:
        width: of the tokens, a multiple of 32.
        kind: `Vanilla`, or `VanillaGrid` for attention over squares of places.
        options: of the config.
    """

    def __init__(self, width: int, kind: Literal["Vanilla", "VanillaGrid"], options: MotionOptions) -> None:
        super().__init__()
        self.temporal_transformer = _MotionTransformer(width, options, options.reaches(kind))

    def forward(self, video: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """`(B, S, D)`, frame-major over `grid = (f, h, w)`, to the same shape."""
        y: Tensor = self.temporal_transformer(video.unflatten(1, grid)).flatten(1, 3)
        return video + y
