"""Prompts to hidden states: exactly what the released model saw, and nothing that it did not need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from easyanimate_core.checkpoints.load import load_into
from easyanimate_core.checkpoints.source import read_json, weight_files
from easyanimate_core.errors import CheckpointError, CheckpointMismatch, CheckpointNotFound, ConfigError
from easyanimate_core.interfaces import TextEncoder
from easyanimate_core.testing.tiny import TEXT_ENCODER_CONFIG, write_tokenizer
from easyanimate_core.text.qwen2_vl import Qwen2VLTextEncoder

ENGLISH = "a red circle moving right on a blue background"
CHINESE = "一只小狗坐在樱花树下"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text_encoder/ and tokenizer/, written by transformers itself from its full model."""
    folder = tmp_path_factory.mktemp("released")
    tokenizer = write_tokenizer(folder / "tokenizer")
    config = Qwen2VLConfig.from_dict({**TEXT_ENCODER_CONFIG, "vocab_size": len(tokenizer)})
    torch.manual_seed(1)
    full = Qwen2VLForConditionalGeneration(config).eval()
    for parameter in full.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    full.save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def full(released: Path) -> Qwen2VLForConditionalGeneration:
    return Qwen2VLForConditionalGeneration.from_pretrained(released / "text_encoder", local_files_only=True).eval()


def loaded(folder: Path, **changes: Any) -> Qwen2VLTextEncoder:
    with torch.device("meta"):
        config = {**read_json(folder / "text_encoder" / "config.json"), **changes}
        encoder = Qwen2VLTextEncoder(config, folder / "tokenizer")
    load_into(encoder, weight_files(folder / "text_encoder"), keymap=encoder.keymap)
    return encoder


def rewritten(folder: Path, to: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """A copy of a checkpoint with other text tensors."""
    (to / "text_encoder").mkdir()
    (to / "tokenizer").symlink_to(folder / "tokenizer")
    (to / "text_encoder" / "config.json").write_bytes((folder / "text_encoder" / "config.json").read_bytes())
    save_file(dict(tensors), to / "text_encoder" / "model.safetensors")
    return to


@pytest.mark.feature("C004")
@torch.no_grad()
def test_states_are_the_second_last_of_the_full_model_padding_included(
    released: Path, full: Qwen2VLForConditionalGeneration
) -> None:
    encoder: TextEncoder = (concrete := loaded(released))
    ids, mask = concrete.tokenize([ENGLISH])
    assert 0 < mask.sum() < mask.numel()
    want = full(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    got = encoder.encode([ENGLISH])
    assert got.states.shape == (1, 64, 32)
    assert torch.equal(got.mask, mask)
    torch.testing.assert_close(got.states, want, rtol=0, atol=1e-6)


@pytest.mark.feature("C006")
@torch.no_grad()
def test_a_list_of_prompts_equals_one_by_one(released: Path) -> None:
    encoder = loaded(released)
    together = encoder.encode([ENGLISH, CHINESE, "short"])
    for i, prompt in enumerate([ENGLISH, CHINESE, "short"]):
        assert torch.equal(together.states[i], encoder.encode([prompt]).states[0])
    assert not torch.equal(together.states[0], together.states[1])


@pytest.mark.feature("C006")
def test_any_script_reaches_the_model_unchanged(released: Path) -> None:
    encoder = loaded(released)
    ids, mask = encoder.tokenize([CHINESE])
    assert CHINESE in encoder.tokenizer.decode(ids[0][mask[0] == 1])


def test_the_chat_template_is_applied_to_the_letter(released: Path) -> None:
    assert loaded(released).chat("a cat") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
    )


def test_special_tokens_are_one_token_each(released: Path) -> None:
    encoder = loaded(released)
    start = encoder.tokenizer.convert_tokens_to_ids("<|im_start|>")
    ids, _ = encoder.tokenize(["a cat"])
    assert int((ids == start).sum()) == 3


def test_padding_is_on_the_right_and_long_prompts_are_cut(released: Path) -> None:
    encoder = loaded(released)
    ids, mask = encoder.tokenize(["a", "word " * 100])
    assert ids.shape == mask.shape == (2, 64)
    assert mask[0].diff().min() == -1, "ones, then zeros"
    assert mask[1].all()


def test_padded_length_comes_from_the_tokenizer_or_the_preset(released: Path, tmp_path: Path) -> None:
    config = read_json(released / "text_encoder" / "config.json")
    assert Qwen2VLTextEncoder(config, released / "tokenizer").max_length == 64
    assert Qwen2VLTextEncoder(config, released / "tokenizer", max_length=24).max_length == 24
    long = write_tokenizer(tmp_path, max_length=32768)
    assert Qwen2VLTextEncoder(config, long).max_length == 256, "as released models were trained"


@pytest.mark.feature("C004")
@torch.no_grad()
def test_the_mask_is_mandatory(released: Path) -> None:
    encoder = loaded(released)
    ids, mask = encoder.tokenize([ENGLISH])
    with pytest.raises(ConfigError, match="mask"):
        encoder(ids, None)
    assert not torch.allclose(encoder(ids, mask), encoder(ids, torch.ones_like(mask)))


def test_unused_parts_are_never_read(released: Path, tmp_path: Path) -> None:
    """Vision tower, last layer, final norm and head may be absent, or full of NaN."""
    tensors = load_file(released / "text_encoder" / "model.safetensors")
    used = [name for name in tensors if loaded(released).keymap(name)]
    assert len(used) == 1 + 2 * 12
    poisoned = {n: t if n in used else torch.full_like(t, torch.nan) for n, t in tensors.items()}
    assert loaded(rewritten(released, tmp_path, poisoned)).encode([ENGLISH]).states.isfinite().all()


@pytest.mark.parametrize("prefix", ["model.", "model.language_model.", "language_model.model."])
def test_names_of_all_ages_load(released: Path, tmp_path: Path, prefix: str) -> None:
    encoder = loaded(released)
    renamed = {prefix + n.removeprefix("model."): t for n, t in encoder.released_state_dict().items()}
    again = loaded(rewritten(released, tmp_path, renamed))
    assert torch.equal(again.encode([ENGLISH]).states, encoder.encode([ENGLISH]).states)


def test_a_flat_and_a_nested_config_mean_the_same(released: Path) -> None:
    nested = read_json(released / "text_encoder" / "config.json")
    flat = {**TEXT_ENCODER_CONFIG, "vocab_size": nested["text_config"]["vocab_size"]}
    a = Qwen2VLTextEncoder(flat, released / "tokenizer").state_dict()
    b = Qwen2VLTextEncoder(nested, released / "tokenizer").state_dict()
    assert {n: t.shape for n, t in a.items()} == {n: t.shape for n, t in b.items()}


def test_wrong_weights_are_refused(released: Path, tmp_path: Path) -> None:
    good = loaded(released).released_state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    wrong: dict[str, tuple[dict[str, torch.Tensor], str]] = {
        "missing": ({n: t for n, t in good.items() if n != name}, "1 missing: model.layers.0.mlp.up_proj.weight"),
        "unexpected": ({**good, "model.extra": torch.ones(1)}, "1 unexpected: model.extra"),
        "nan": ({**good, name: torch.full_like(good[name], torch.nan)}, "NaN"),
        "shape": ({**good, name: torch.ones(2, 2)}, "another shape"),
    }
    for kind, (tensors, said) in wrong.items():
        (tmp_path / kind).mkdir()
        with pytest.raises(CheckpointMismatch, match=said):
            loaded(rewritten(released, tmp_path / kind, tensors))


def test_a_foreign_config_or_tokenizer_is_refused(released: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="'t5'"):
        loaded(released, model_type="t5")
    with pytest.raises(CheckpointNotFound, match="no tokenizer"):
        Qwen2VLTextEncoder(read_json(released / "text_encoder" / "config.json"), tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError):
        Qwen2VLTextEncoder(read_json(released / "text_encoder" / "config.json"), tmp_path)


def test_a_tokenizer_without_chat_template_is_refused(released: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config = read_json(released / "text_encoder" / "config.json")
    with pytest.raises(CheckpointMismatch, match="chat template"):
        Qwen2VLTextEncoder(config, tmp_path)


def test_the_template_may_lie_in_the_tokenizer_config(released: Path, tmp_path: Path) -> None:
    """Releases keep it there; newer tokenizers write a file of its own."""
    tokenizer = write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**config, "chat_template": tokenizer.chat_template}), "utf-8"
    )
    encoder = Qwen2VLTextEncoder(read_json(released / "text_encoder" / "config.json"), tmp_path)
    assert encoder.chat("a cat").startswith("<|im_start|>system")
