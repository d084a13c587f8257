"""The released denoisers by their shapes, so that a mismatch can say which model a file really is.

Source: the releases' `config.json`, published parameter counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["RELEASES", "Anatomy", "Release", "anatomy", "describe_config", "describe_nearest", "family_of", "texts_of"]

_BLOCK: Final = re.compile(r"transformer_blocks\.(\d+)\.(attn2\.to_q\.weight|attn1\.add_q_proj\.weight|)")
_BLOCK_OF_V4: Final = re.compile(r"blocks\.(\d+)\.")
_SKIP: Final = re.compile(r"long_connect_fc\.\d+\.weight")
# The key of `config.json` that only this family of denoisers has, and says the width of its (last) text encoder.
_FAMILIES: Final = (
    ("mmdit", "text_embed_dim"),
    ("hunyuan", "cross_attention_dim_t5"),
    ("pixart", "caption_channels"),
)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What distinguishes the released denoisers.

    Attributes:
        width: channels of a token.
        layers: blocks.
        mmdit_layers: blocks with own weights for text (of the family `mmdit`; in others, all).
        in_channels: of the patch projection.
        text_width: of the text encoder's states: of the first one for `mmdit`, of mT5 for `hunyuan`.
        family: the denoiser's registered name.
        skips: long skips between blocks that have weights (of the family `pixart`).
    """

    width: int
    layers: int
    mmdit_layers: int
    in_channels: int
    text_width: int
    family: str = "mmdit"
    skips: int = 0

    def __str__(self) -> str:
        own = "all" if self.mmdit_layers == self.layers else str(self.mmdit_layers)
        layers = f"{self.layers} layers" + (f" ({own} with own text weights)" if self.family == "mmdit" else "")
        skips = f" and {self.skips} long skips" if self.skips else ""
        return f"width {self.width}, {layers}{skips}, {self.in_channels} input channels, text width {self.text_width}"


@dataclass(frozen=True, slots=True)
class Release:
    """A released denoiser: its folder's name, the preset for it if there is one, and its anatomy."""

    folder: str
    preset: str
    anatomy: Anatomy


def _family(
    generation: str, size: str, layers: int, own: int, text: int, tasks: Mapping[str, tuple[str, int]]
) -> tuple[Release, ...]:
    return tuple(
        Release(
            f"EasyAnimateV{generation}-{size}-zh{suffix}",
            f"v{generation}-{size}{task}",
            Anatomy(3072, layers, own, channels, text),
        )
        for task, (suffix, channels) in tasks.items()
    )


def _sizes(generation: int, suffix: str, channels: int, *sizes: int) -> tuple[Release, ...]:
    anatomy = Anatomy(1152, 28, 28, channels, 4096, "pixart", 13)
    return tuple(
        Release(f"EasyAnimateV{generation}-XL-2-{suffix}{size}x{size}", f"v{generation}-{size}", anatomy)
        for size in sizes
    )


_V51: Final = (
    ("", ("", 16)),
    ("-inp", ("-InP", 33)),
    ("-control", ("-Control", 48)),
    ("-camera", ("-Control-Camera", 38)),
)
_V5: Final = (("", ("", 16)), ("-inp", ("-InP", 33)), ("-control", ("-Control", 32)))

RELEASES: Final[tuple[Release, ...]] = (
    *_family("5.1", "7b", 36, 18, 3584, dict(_V51)),
    *_family("5.1", "12b", 48, 48, 3584, dict(_V51)),
    *_family("5", "7b", 36, 18, 1024, dict(_V5[:2])),
    *_family("5", "12b", 48, 48, 1024, dict(_V5)),
    Release("EasyAnimateV4-XL-2-InP", "v4-inp", Anatomy(1408, 40, 40, 12, 2048, "hunyuan")),
    *_sizes(3, "InP-", 12, 512, 768, 960),
    *_sizes(2, "", 4, 512, 768),
    Release("PixArt-XL-2-512x512", "v1", Anatomy(1152, 28, 28, 4, 4096, "pixart")),
)
"""Denoisers of all generations. V4's geometry is that of HunyuanDiT, which its release is expected to have."""


def anatomy(shapes: Mapping[str, tuple[int, ...]]) -> Anatomy | None:
    """The anatomy of a denoiser by the shapes of its tensors; `None` when they are of something else."""
    found = [match for name in shapes if (match := _BLOCK.match(name))]
    layers = {int(match[1]) for match in found}
    own = {int(match[1]) for match in found if match[2]}

    def shape(*names: str) -> tuple[int, ...]:
        return next((shapes[name] for name in names if name in shapes), ())

    proj, text = shape("proj.weight"), shape("text_proj.1.weight", "text_proj.weight")
    if len(proj) >= 2 and found and len(text) == 2:
        return Anatomy(proj[0], len(layers), len(own), proj[1], text[1])
    proj, text = shape("pos_embed.proj.weight"), shape("caption_projection.linear_1.weight")
    if len(proj) >= 2 and found and len(text) == 2:
        skips = sum(bool(_SKIP.fullmatch(name)) for name in shapes)
        return Anatomy(proj[0], len(layers), len(layers), proj[1], text[1], "pixart", skips)
    text = shape("text_embedder.linear_1.weight")
    layers = {int(match[1]) for name in shapes if (match := _BLOCK_OF_V4.match(name))}
    if len(proj) >= 2 and layers and len(text) == 2:
        return Anatomy(proj[0], len(layers), len(layers), proj[1], text[1], "hunyuan")
    return None


def family_of(config: Mapping[str, Any]) -> str | None:
    """Registered name of the denoiser that a `transformer/config.json` is of; `None` when it is of none of ours."""
    return next((family for family, key in _FAMILIES if key in config), None)


def texts_of(config: Mapping[str, Any]) -> int | None:
    """How many text encoders a `transformer/config.json` is for; `None` when it does not say, or is of none of ours."""
    family = family_of(config)
    if family == "mmdit":
        return (2 if config["text_embed_dim_t5"] else 1) if "text_embed_dim_t5" in config else None
    return {"hunyuan": 2, "pixart": 1}.get(family or "")


def describe_config(config: Mapping[str, Any]) -> str:
    """One sentence on the releases that a `transformer/config.json` may be of; empty when it is of none of ours.

    A config says less than the tensors: the original left some of its settings to another file.
    """
    family, channels = family_of(config), config.get("in_channels")
    same = [r for r in RELEASES if r.anatomy.family == family and r.anatomy.in_channels == channels]
    layers, text = config.get("num_layers"), config.get(dict(_FAMILIES).get(family or "", ""))
    exact = [r for r in same if (r.anatomy.layers, r.anatomy.text_width) == (layers, text)]
    if exact:
        return f"It is of {_either(r.folder for r in exact)}: choose the model {_models(exact)}."
    if same:
        return f"Models with {channels} input channels: {_models(same)}."
    return ""


def describe_nearest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """One sentence on which release tensors of these shapes are, or are nearest to; empty for other models."""
    found = anatomy(shapes)
    if (half := _half(shapes)) or found is None:
        return half

    def distance(release: Release) -> tuple[int, ...]:
        other = release.anatomy
        return (
            other.family != found.family,
            sum(getattr(found, name) != getattr(other, name) for name in Anatomy.__slots__),
            abs(found.layers - other.layers),
            abs(found.in_channels - other.in_channels),
        )

    nearest = min(RELEASES, key=distance)
    same = [release for release in RELEASES if release.anatomy == nearest.anatomy]
    folders = _either(release.folder for release in same)
    if nearest.anatomy == found:
        return f"These are the weights of {folders}: choose the model {_models(same)}."
    if nearest.anatomy.width != found.width:
        return f"No release has these shapes ({found})."
    return f"The nearest release is {folders} ({nearest.anatomy}); the file has {found}."


def _either(names: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _models(releases: Sequence[Release]) -> str:
    return _either(f"'{release.preset}'" for release in releases)


def _half(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What an image model without motion, or motion without an image model, is half of."""
    moves, draws = any(".attn_temporal." in name for name in shapes), "adaln_single.linear.weight" in shapes
    if draws and not moves:
        return "These are the weights of an image model (PixArt). V1 has a motion module for it: --motion-path FILE."
    if moves and not draws:
        return "This is a motion module alone. It belongs beside an image model (PixArt): --motion-path FILE."
    return ""
