"""What encoders of one padded prompt share: tokens of a fixed length in, last hidden state out."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from easyanimate_core.data import TextEmbedding
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound

__all__ = ["PaddedTextEncoder", "model_config", "read_tokenizer_config"]

_LONGEST = 256


class PaddedTextEncoder(nn.Module):
    """Prompts to the last hidden state of an encoder, padding included. Prompts are read as they are written.

    Args:
        model: ids and mask to states.
        tokenizer: pads on the right.
        max_length: tokens that every prompt is padded or cut to; when not given what the tokenizer says, at most 256.
        masked: the encoder does not look at padding, which changes the states of prompts. V5 was trained without.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int | None = None,
        masked: bool = True,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length or min(int(tokenizer.model_max_length), _LONGEST)
        self.masked = masked

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, `(B, max_length)` int64 each on the CPU; a longer prompt loses its tail."""
        encoded = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.max_length,
            truncation=True,
            padding_side="right",
            return_tensors="pt",
        )
        return encoded.input_ids, encoded.attention_mask

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states `(B, L, D)` of tokens `(B, L)`; `mask` `(B, L)` is 1 on tokens and 0 on padding."""
        states: Tensor = self.model(input_ids=ids, attention_mask=mask if self.masked else None).last_hidden_state
        return states

    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Encode each prompt on its own; see `interfaces.TextEncoder`.

        Returns:
            states `(B, max_length, D)` in the weights' dtype and mask `(B, max_length)`, on the weights' device.
        """
        device = next(self.model.parameters()).device
        ids, mask = (tokens.to(device) for tokens in self.tokenize(prompts))
        # One at a time: the result for a prompt must not depend, not even in the last bit, on its neighbours.
        states = [self(ids[i : i + 1], mask[i : i + 1]) for i in range(len(prompts))]
        return TextEmbedding(torch.cat(states), mask)


def model_config(config: Mapping[str, Any], *kinds: str) -> dict[str, Any]:
    """The settings of a `text_encoder/config.json`, without the dtype that the release was stored in.

    Raises:
        CheckpointMismatch: its model type is none of `kinds`.
    """
    if config.get("model_type") not in kinds:
        wanted = " or ".join(f"'{kind}'" for kind in kinds)
        raise CheckpointMismatch(
            f"the text encoder's config.json is of the model type '{config.get('model_type')}', not {wanted}",
            "Choose the preset that belongs to this checkpoint.",
        )
    stored = ("model_type", "torch_dtype", "dtype", "architectures", "_name_or_path", "transformers_version")
    # Weights decide the dtype when they are loaded. Configs take keys away from what they are given.
    return copy.deepcopy({key: value for key, value in config.items() if key not in stored})


def read_tokenizer_config(folder: Path, *vocabularies: str) -> dict[str, Any]:
    """The settings in a `tokenizer/` folder; empty when it has none.

    Args:
        folder: the tokenizer's.
        vocabularies: files of which it has to hold one.

    Raises:
        CheckpointNotFound: the folder holds no tokenizer.
        CheckpointMismatch: its settings cannot be read.
    """
    if not any((folder / name).is_file() for name in vocabularies):
        raise CheckpointNotFound(f"'{folder}' holds no tokenizer", f"Expected {' or '.join(vocabularies)}.")
    path = folder / "tokenizer_config.json"
    try:
        settings = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise CheckpointMismatch(f"'{path}' cannot be read: {error}", "Fetch it again.") from error
    if not isinstance(settings, dict):
        raise CheckpointMismatch(f"'{path}' does not hold settings", "Fetch it again.")
    return settings
