"""BERT as a prompt encoder: V4 and V5 read the bilingual one of HunyuanDiT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedTokenizerFast

from easyanimate_core.errors import CheckpointMismatch
from easyanimate_core.text.padded import PaddedTextEncoder, model_config, read_tokenizer_config

__all__ = ["BertTextEncoder", "load_bert_tokenizer"]

_UNUSED = ("pooler.", "cls.", "embeddings.position_ids", "embeddings.token_type_ids")


class BertTextEncoder(PaddedTextEncoder):
    """Prompts to the last hidden state of BERT, padding included.

    The pooler and the heads of pre-training are neither built nor read.

    Args:
        config: `config.json` of the checkpoint's text encoder.
        tokenizer: the checkpoint's tokenizer folder, or what `load_bert_tokenizer` made of it.
        max_length: tokens that every prompt is padded or cut to; when not given what the tokenizer says, at most 256.
        masked: the encoder does not look at padding. V5 was trained without.

    Raises:
        CheckpointMismatch: the config is not one of BERT.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer: Path | PreTrainedTokenizerFast,
        *,
        max_length: int | None = None,
        masked: bool = True,
    ) -> None:
        tokenizer = load_bert_tokenizer(tokenizer) if isinstance(tokenizer, Path) else tokenizer
        settings = BertConfig(**model_config(config, "bert"))
        # In the released configs, but nothing that this model does.
        settings.is_decoder = settings.use_cache = False
        model = BertModel._from_config(settings, add_pooling_layer=False, dtype=torch.get_default_dtype())
        # Tables that are no weights must be real even where weights wait on the meta device.
        with torch.device("cpu"):
            for name, table in list(model.embeddings.named_buffers(recurse=False)):
                count = table.shape[-1]
                values = torch.arange(count) if name == "position_ids" else torch.zeros(count, dtype=torch.long)
                model.embeddings.register_buffer(name, values[None], persistent=False)
        super().__init__(model, tokenizer, max_length=max_length, masked=masked)
        self.config = dict(config)

    def keymap(self, name: str) -> str | None:
        """Name of a released tensor to name of a parameter here; `None` for what is never read."""
        name = name.removeprefix("bert.")
        return None if name.startswith(_UNUSED) else f"model.{name}"

    def released_state_dict(self) -> dict[str, torch.Tensor]:
        """The parameters under the names of a released checkpoint."""
        return {name.removeprefix("model."): tensor for name, tensor in self.state_dict().items()}


def load_bert_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a released checkpoint, from `vocab.txt` or `tokenizer.json` and never from the network.

    Raises:
        CheckpointNotFound: the folder holds no tokenizer.
        CheckpointMismatch: it holds something else.
    """
    read_tokenizer_config(folder, "vocab.txt", "tokenizer.json")
    try:
        return BertTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(f"'{folder}' does not hold a BERT tokenizer: {error}", "Fetch it again.") from error
