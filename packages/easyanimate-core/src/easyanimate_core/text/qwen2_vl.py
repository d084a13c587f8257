"""The language part of Qwen2-VL as a prompt encoder: chat template in, second last hidden state out."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen2VLConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

from easyanimate_core.data import TextEmbedding
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound, ConfigError

__all__ = ["Qwen2VLTextEncoder", "load_tokenizer"]

# Names up to transformers 4 (`model.layers.0…`) and from 5 on (`model.language_model.layers.0…`).
_LANGUAGE = r"^(?:model\.)?(?:language_model\.)?(?:model\.)?"
_USED = re.compile(_LANGUAGE + r"(?P<name>(?:layers\.(?P<layer>\d+)|embed_tokens)\..+)$")
_UNUSED = re.compile(_LANGUAGE + r"norm\.|^(?:model\.)?visual\.|^lm_head\.")


class Qwen2VLTextEncoder(nn.Module):
    """Prompts to `hidden_states[-2]` of Qwen2-VL, padding included.

    Only what that state depends on exists here: token embeddings and all layers but the last. The vision tower, the
    last layer, the final norm and the language head are neither built nor read.

    Args:
        config: `text_encoder/config.json` of the checkpoint, flat or with a `text_config`.
        tokenizer: the checkpoint's `tokenizer/` folder, or what `load_tokenizer` made of it; it brings the chat
            template.
        max_length: tokens that every prompt is padded or cut to, template included; when not given what the
            tokenizer says, at most 256.

    Raises:
        CheckpointMismatch: the config is not one of Qwen2-VL, or the tokenizer has no chat template.
    """

    def __init__(
        self, config: Mapping[str, Any], tokenizer: Path | Qwen2Tokenizer, *, max_length: int | None = None
    ) -> None:
        super().__init__()
        tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, Path) else tokenizer
        if tokenizer.chat_template is None:
            raise CheckpointMismatch(
                "the tokenizer has no chat template", "tokenizer_config.json of the release holds it; fetch it again."
            )
        self.config = dict(config)
        self.tokenizer = tokenizer
        self.max_length = max_length or min(int(tokenizer.model_max_length), 256)
        self.model = _language_model(config)

    def keymap(self, name: str) -> str | None:
        """Name of a released tensor to name of a parameter here; `None` for what is never read."""
        found = _USED.match(name)
        if found is None:
            return None if _UNUSED.match(name) else name
        if found["layer"] is not None and int(found["layer"]) == len(self.model.layers):
            return None
        return f"model.{found['name']}"

    def released_state_dict(self) -> dict[str, Tensor]:
        """The parameters under the names of a released checkpoint, `model.layers.…` and `model.embed_tokens.…`."""
        return dict(self.state_dict())

    def chat(self, prompt: str) -> str:
        """The text that the model really reads: the prompt as one turn of the checkpoint's chat template.

        Raises:
            CheckpointMismatch: there is no template, or it does more than write text; it runs in a sandbox.
        """
        turn = {"role": "user", "content": [{"type": "text", "text": prompt}]}
        try:
            return str(self.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True))
        except (TemplateError, ValueError) as error:
            first = str(error).splitlines()[0]
            what = f"the chat template of '{self.tokenizer.name_or_path}' cannot be used: {first}"
            raise CheckpointMismatch(what, "Fetch tokenizer/ again, from its authors.") from error

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, `(B, L)` int64 each on the CPU, padded on the right to `max_length`.

        A longer prompt loses its tail, and the template's closing with it, as in training.
        """
        encoded = self.tokenizer(
            [self.chat(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self.max_length,
            truncation=True,
            padding_side="right",
            return_tensors="pt",
        )
        return encoded.input_ids, encoded.attention_mask

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states `(B, L, D)` of tokens `(B, L)`; `mask` `(B, L)` is 1 on tokens and 0 on padding.

        Raises:
            ConfigError: the mask does not fit. It is mandatory: without it, padding changes what prompts mean.
        """
        if mask is None or mask.shape != ids.shape:
            raise ConfigError(
                f"the token mask is '{None if mask is None else tuple(mask.shape)}', ids are {tuple(ids.shape)}",
                "Give the mask that `tokenize` returned with the ids.",
            )
        # Positions count on through padding, as in transformers' full model for text without pictures.
        states: Tensor = self.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return states

    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Encode each prompt on its own; see `interfaces.TextEncoder`.

        Returns:
            states `(B, max_length, D)` in the weights' dtype and mask `(B, max_length)`, on the weights' device.
        """
        ids, mask = (tokens.to(self.model.embed_tokens.weight.device) for tokens in self.tokenize(prompts))
        # One at a time: the result for a prompt must not depend, not even in the last bit, on its neighbours.
        states = [self(ids[i : i + 1], mask[i : i + 1]) for i in range(len(prompts))]
        return TextEmbedding(torch.cat(states), mask)


def load_tokenizer(folder: Path) -> Qwen2Tokenizer:
    """The tokenizer of a released checkpoint, from its `tokenizer/` folder and never from the network.

    Raises:
        CheckpointNotFound: the folder holds no tokenizer.
        CheckpointMismatch: it holds something else.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointNotFound(
            f"'{folder}' holds no tokenizer", "Expected tokenizer.json, or vocab.json and merges.txt."
        )
    try:
        return Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(f"'{folder}' does not hold a Qwen2 tokenizer: {error}", "Fetch it again.") from error


def _language_model(config: Mapping[str, Any]) -> Qwen2VLTextModel:
    """The language model of a Qwen2-VL config, without its last layer and final norm."""
    if config.get("model_type") != "qwen2_vl":
        raise CheckpointMismatch(
            f"text_encoder/config.json is of the model type '{config.get('model_type')}', not 'qwen2_vl'",
            "Choose the preset that belongs to this checkpoint.",
        )
    # from_dict takes keys away from what it is given.
    text = Qwen2VLConfig.from_dict(copy.deepcopy(dict(config))).get_text_config()
    text.num_hidden_layers -= 1
    text.layer_types = text.layer_types[: text.num_hidden_layers]
    text.use_cache = False
    # Weights decide the dtype when they are loaded; the config only says how the release was stored.
    text.dtype = None
    model = Qwen2VLTextModel._from_config(text, attn_implementation="sdpa", dtype=torch.get_default_dtype())
    model.norm = nn.Identity()
    # The table of frequencies is no weight: it must be real even where weights wait on the meta device.
    with torch.device("cpu"):
        model.rotary_emb = type(model.rotary_emb)(text)
    return model.eval()
