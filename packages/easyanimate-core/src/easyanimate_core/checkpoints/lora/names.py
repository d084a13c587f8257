"""The names of LoRA tensors in three layouts, and what each says about the layer that it belongs to.

| layout | tensors of one layer | scale |
|---|---|---|
| `kohya` | `lora_unet__blocks_0_to_q.lora_down.weight`, `….lora_up.weight`, `….alpha` | alpha / rank; 1 without alpha |
| `peft` | `base_model.model.blocks.0.to_q.lora_A.weight`, `….lora_B.weight` | of `adapter_config.json` |
| `diffusers` | `transformer.blocks.0.to_q.lora_A.weight`, `….lora_B.weight` | of the metadata, or `….alpha` |

In `kohya`, dots of the layer's path are underscores. EasyAnimate's own trainer writes two underscores after
`lora_unet`; one is read as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from easyanimate_core.errors import CheckpointMismatch

__all__ = ["LAYOUTS", "Part", "dotted", "flat", "linear_names", "part_of"]

LAYOUTS: Final = ("kohya", "peft", "diffusers")
"""Layouts that are read and written."""

_KOHYA: Final = re.compile(
    r"lora_(?P<kind>unet|te\d*)_{1,2}(?P<layer>.+)\.(?P<part>lora_down\.weight|lora_up\.weight|alpha)$"
)
_DOTTED: Final = re.compile(
    r"(?P<prefix>base_model\.model\.|transformer\.|text_encoder(?:_\d+)?\.)?(?P<layer>.+?)\."
    r"(?:(?P<part>lora_A|lora_B|lora_down|lora_up)(?:\.\w+)?\.weight|(?P<alpha>alpha))$"
)
_ROLES: Final = (("text_encoder_", "text_"), ("text_encoder", "text"))
_PARTS: Final = {"lora_A": "down", "lora_down": "down", "lora_B": "up", "lora_up": "up"}

# Segments of layer paths that hold an underscore themselves; without the model at hand, they say where dots were.
_WORDS: Final = (
    "transformer_blocks", "time_embedding", "text_proj_t5", "text_proj", "norm_out", "proj_out", "txt_ff", "to_q",
    "to_k", "to_v", "to_out", "linear_1", "linear_2", "self_attn", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
    "up_proj", "down_proj", "attn_temporal", "temporal_transformer", "attention_blocks", "proj_in", "long_connect_fc",
    "adaln_single", "timestep_embedder", "resolution_embedder", "aspect_ratio_embedder", "caption_projection",
    "clip_projection", "text_embedder", "time_extra_emb", "extra_embedder", "c_proj", "kv_proj", "attn_clip",
    "gate_clip", "skip_linear",
)  # fmt: skip
_WORD: Final = re.compile("|".join([*_WORDS, "[A-Za-z0-9]+"]))


@dataclass(frozen=True, slots=True)
class Part:
    """What one stored tensor is.

    Attributes:
        layout: `"kohya"`, `"peft"` or `"diffusers"`.
        role: whose layer: `"denoiser"`, `"text"`, `"text_2"`.
        layer: path of the layer; in `kohya` with underscores for dots.
        part: `"down"`, `"up"` or `"alpha"`.
    """

    layout: str
    role: str
    layer: str
    part: str


def part_of(name: str) -> Part | None:
    """What a stored tensor is by its name; `None` when it is none of a LoRA."""
    if found := _KOHYA.match(name):
        part = {"lora_down.weight": "down", "lora_up.weight": "up", "alpha": "alpha"}[found["part"]]
        number = found["kind"].removeprefix("te")
        role = "denoiser" if found["kind"] == "unet" else "text" if number in ("", "1") else f"text_{number}"
        return Part("kohya", role, found["layer"], part)
    if not (found := _DOTTED.match(name)):
        return None
    prefix = (found["prefix"] or "").removesuffix(".")
    layout = "peft" if prefix == "base_model.model" else "diffusers"
    role = next((new + prefix.removeprefix(old) for old, new in _ROLES if prefix.startswith(old)), "denoiser")
    return Part(layout, role, found["layer"], "alpha" if found["alpha"] else _PARTS[found["part"]])


def dotted(layer: str) -> str:
    """The path of a kohya layer of a released model, by the words that its names are made of.

    With the model at hand its own layer names are the better source; see `match_lora`.

    Raises:
        CheckpointMismatch: the words do not make up the name.
    """
    words = list(_words(layer))
    if "_".join(words) != layer:
        raise CheckpointMismatch(
            f"the LoRA layer '{layer}' cannot be told apart into words", "It is not of a model of EasyAnimate."
        )
    return ".".join(words)


def _words(layer: str) -> Iterator[str]:
    at = 0
    while found := _WORD.match(layer, at):
        yield found[0]
        at = found.end() + 1


def linear_names(module: nn.Module) -> Iterator[str]:
    """Paths of the layers that a LoRA of ours can train: linear ones and 1×1 convolutions, not those of other LoRAs.

    The output of PyTorch's own attention is left out: that layer's weights are read past the layer itself.
    """
    for name, layer in module.named_modules():
        if ".lora_A." in name or ".lora_B." in name or isinstance(layer, NonDynamicallyQuantizableLinear):
            continue
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
            yield name


def flat(paths: Iterable[str]) -> dict[str, str]:
    """Paths by their kohya names."""
    return {path.replace(".", "_"): path for path in paths}
