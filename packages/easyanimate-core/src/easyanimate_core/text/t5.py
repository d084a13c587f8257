"""The encoder of T5 and mT5 as a prompt encoder: V1 to V3 read T5, V4 and V5 read mT5 beside BERT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast, T5Config, T5Tokenizer
from transformers.models.t5.modeling_t5 import T5Stack

from easyanimate_core.errors import CheckpointMismatch
from easyanimate_core.text.padded import PaddedTextEncoder, model_config, read_tokenizer_config
from easyanimate_core.text.sentencepiece import read_pieces

__all__ = ["T5TextEncoder", "load_t5_tokenizer"]

_END, _PADDING = "</s>", "<pad>"


class T5TextEncoder(PaddedTextEncoder):
    """Prompts to the last hidden state of T5's encoder, padding included.

    The decoder and the language head are neither built nor read.

    Args:
        config: `config.json` of the checkpoint's text encoder.
        tokenizer: the checkpoint's tokenizer folder, or what `load_t5_tokenizer` made of it.
        max_length: tokens that every prompt is padded or cut to; when not given what the tokenizer says, at most 256.
        masked: the encoder does not look at padding. V5 was trained without.

    Raises:
        CheckpointMismatch: the config is not one of T5 or mT5.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer: Path | PreTrainedTokenizerFast,
        *,
        max_length: int | None = None,
        masked: bool = True,
    ) -> None:
        tokenizer = load_t5_tokenizer(tokenizer) if isinstance(tokenizer, Path) else tokenizer
        settings = T5Config(**model_config(config, "t5", "mt5"))
        settings.is_encoder_decoder = settings.use_cache = False
        model = T5Stack._from_config(settings, dtype=torch.get_default_dtype())
        super().__init__(model, tokenizer, max_length=max_length, masked=masked)
        self.config = dict(config)

    def keymap(self, name: str) -> str | None:
        """Name of a released tensor to name of a parameter here; `None` for what is never read."""
        if name == "shared.weight":
            return "model.embed_tokens.weight"
        # The table is stored once as `shared`, and again under this name by older libraries.
        if name == "encoder.embed_tokens.weight" or name.startswith(("decoder.", "lm_head.")):
            return None
        return f"model.{name.removeprefix('encoder.')}" if name.startswith("encoder.") else name

    def released_state_dict(self) -> dict[str, torch.Tensor]:
        """The parameters under the names of a released checkpoint."""
        named = {name.removeprefix("model."): tensor for name, tensor in self.state_dict().items()}
        table = named.pop("embed_tokens.weight")
        return {"shared.weight": table, **{f"encoder.{name}": tensor for name, tensor in named.items()}}


def load_t5_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a released checkpoint, from `spiece.model` or `tokenizer.json` and never from the network.

    Raises:
        CheckpointNotFound: the folder holds no tokenizer.
        CheckpointMismatch: it holds something else.
    """
    settings = read_tokenizer_config(folder, "spiece.model", "tokenizer.json")
    if not (folder / "spiece.model").is_file():
        try:
            return T5Tokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointMismatch(f"'{folder}' does not hold a T5 tokenizer: {error}", "Fetch it again.") from error
    pieces = read_pieces(folder / "spiece.model")
    # T5 keeps names for gaps after the vocabulary, mT5 says that it has none.
    extra = int(settings.get("extra_ids", 100))
    vocabulary = [*pieces.vocabulary, *((f"<extra_id_{i}>", 0.0) for i in reversed(range(extra)))]
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=pieces.unknown, byte_fallback=False))
    if pieces.normaliser:
        tokenizer.normalizer = normalizers.Precompiled(pieces.normaliser)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    if (end := tokenizer.token_to_id(_END)) is None or tokenizer.token_to_id(_PADDING) is None:
        raise CheckpointMismatch(
            f"'{folder / 'spiece.model'}' has no '{_END}' or no '{_PADDING}'", "It is not the vocabulary of a T5."
        )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_END,
        pad_token=_PADDING,
        unk_token=vocabulary[pieces.unknown][0],
        model_max_length=int(settings.get("model_max_length", 512)),
    )
