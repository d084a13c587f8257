"""The contract of the slot `text_encoders`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from easyanimate_core.testing.contracts.contract import Contract, close, ensure, rule
from easyanimate_core.testing.tiny import make_tokenizer
from easyanimate_core.testing.tiny.folders import seeded

if TYPE_CHECKING:
    from easyanimate_core.data import TextEmbedding

__all__ = ["TextEncoderContract"]

_SHORT = "a red circle"
_LONG = "a small green star growing on a white background"


class TextEncoderContract(Contract):
    """A `TextEncoder`: shapes, padding, and prompts that do not disturb each other.

    Attributes:
        config: content of a small `text_encoder/config.json`.
        max_length: tokens that prompts are padded and cut to.
        tolerance: largest difference of a prompt's states when it is encoded beside others.
    """

    slot: ClassVar[str] = "text_encoders"
    config: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    max_length: ClassVar[int] = 40
    tolerance: ClassVar[float] = 1e-5

    def tokenizer(self) -> Any:
        """What the factory gets as tokenizer: a tiny one of Qwen2's kind; override it for another, or for a folder."""
        return make_tokenizer(max_length=self.max_length)

    def create(self) -> Any:
        """A new encoder with random weights, by the call that a checkpoint's loader makes."""
        ensure(bool(self.config), "the contract has no `config`: say that of a small one")
        tokenizer = self.tokenizer()
        config = dict(self.config)
        if "vocab_size" not in config and not isinstance(tokenizer, Path):
            config["vocab_size"] = len(tokenizer)
        with seeded(0):
            encoder = self.registry().load(self.component)(config, tokenizer, max_length=self.max_length)
        return encoder.eval() if isinstance(encoder, nn.Module) else encoder

    def encode(self, *prompts: str, encoder: Any = None) -> TextEmbedding:
        """The prompts as a pipeline encodes them, without gradients."""
        with torch.no_grad():
            embedding: TextEmbedding = (encoder or self.create()).encode(prompts)
        return embedding

    @rule
    def test_states_and_mask_have_their_shapes(self) -> None:
        """States are `(B, L, D)` finite numbers, the mask is `(B, L)` int64 of zeros and ones.

        If this fails: see `easyanimate_core.data.TextEmbedding`.
        """
        got = self.encode(_SHORT, _LONG)
        states, mask = got.states, got.mask
        ensure(states.ndim == 3 and states.shape[0] == 2, f"states have the shape '{tuple(states.shape)}'")
        ensure(states.is_floating_point() and states.isfinite().all(), "states are not finite floating-point numbers")
        ensure(mask.shape == states.shape[:2], f"the mask has the shape '{tuple(mask.shape)}'")
        ensure(mask.dtype == torch.int64, f"the mask is '{mask.dtype}'")
        ensure(((mask == 0) | (mask == 1)).all(), "the mask has other values than 0 and 1")

    @rule
    def test_every_prompt_is_padded_to_one_length(self) -> None:
        """Short, long and empty prompts have `max_length` tokens; what is too long is cut.

        If this fails: pad to the length, not to the longest prompt of the batch: guidance joins both halves.
        """
        encoder = self.create()
        for prompt in ("", _SHORT, _LONG, " ".join([_LONG] * 20)):
            length = self.encode(prompt, encoder=encoder).states.shape[1]
            ensure(length == self.max_length, f"'{prompt[:20]}' has '{length}' tokens instead of {self.max_length}")

    @rule
    def test_mask_marks_the_prompt(self) -> None:
        """The mask is 1 on a prompt's tokens: a longer prompt has more of them, and none has none.

        If this fails: 1 is for tokens and 0 for padding.
        """
        short, long = self.encode(_SHORT, _LONG).mask.sum(dim=1).tolist()
        ensure(0 < short <= long, f"'{_SHORT}' has '{short}' tokens, '{_LONG}' has {long}")

    @rule
    def test_prompts_do_not_disturb_each_other(self) -> None:
        """A prompt's states do not depend on its neighbours in the batch.

        If this fails: the attention mask is not passed on, or padding depends on the batch.
        """
        encoder = self.create()
        together = self.encode(_SHORT, _LONG, encoder=encoder)
        for index, prompt in enumerate((_SHORT, _LONG)):
            alone = self.encode(prompt, encoder=encoder)
            close(together.states[index : index + 1], alone.states, self.tolerance, f"'{prompt}' beside another")

    @rule
    def test_encoding_repeats(self) -> None:
        """The same prompt gives the same states, bit by bit.

        If this fails: dropout is on; call `eval()` in the constructor.
        """
        encoder = self.create()
        close(self.encode(_SHORT, encoder=encoder).states, self.encode(_SHORT, encoder=encoder).states, 0, "a repeat")

    @rule
    def test_prompts_make_a_difference(self) -> None:
        """Other words give other states.

        If this fails: the states are not those of the prompt's tokens.
        """
        got = self.encode(_SHORT, _LONG).states
        ensure(not torch.equal(got[0], got[1]), f"'{_SHORT}' and '{_LONG}' have the same states")
