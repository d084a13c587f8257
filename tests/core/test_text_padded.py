"""T5, mT5 and BERT as prompt encoders: the states of transformers' own models, lengths, masks, and vocabularies."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, BertTokenizer, T5EncoderModel, T5Tokenizer

from easyanimate_core.checkpoints.source import read_json
from easyanimate_core.errors import CheckpointMismatch, CheckpointNotFound
from easyanimate_core.interfaces import TextEncoder
from easyanimate_core.pipeline.components import build_text_encoder
from easyanimate_core.testing.tiny import texts
from easyanimate_core.text.bert import load_bert_tokenizer
from easyanimate_core.text.sentencepiece import read_pieces
from easyanimate_core.text.t5 import T5TextEncoder, load_t5_tokenizer

ENGLISH = "a red circle"
MIXED = "红色 circle on a 蓝色 background"
KINDS = ("t5", "mt5", "bert")
FULL = {"t5": T5EncoderModel, "mt5": T5EncoderModel, "bert": BertModel}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind: `<kind>` holds weights, `<kind>-tokenizer` what its name says."""
    folder = tmp_path_factory.mktemp("released")
    texts.write_t5(folder / "t5", folder / "t5-tokenizer")
    texts.write_t5(folder / "mt5", folder / "mt5-tokenizer", model_type="mt5", seed=1)
    texts.write_bert(folder / "bert", folder / "bert-tokenizer")
    return folder


def built(folder: Path, kind: str, **changes: Any) -> Any:
    tokenizer = folder / f"{kind}-tokenizer"
    return build_text_encoder(kind, folder / kind, tokenizer, **{"max_length": None, "dtype": torch.float32, **changes})


def full(folder: Path, kind: str) -> Any:
    """Transformers' whole model with the same weights."""
    config = FULL[kind].config_class(
        **{k: v for k, v in read_json(folder / kind / "config.json").items() if k != "model_type"}
    )
    model = FULL[kind](config).eval()
    left = model.load_state_dict(load_file(folder / kind / "model.safetensors"), strict=False)
    assert not left.unexpected_keys
    assert set(left.missing_keys) <= {"encoder.embed_tokens.weight", "pooler.dense.weight", "pooler.dense.bias"}
    return model


@pytest.mark.feature("C002", "C003")
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_states_are_the_last_hidden_state_padding_included(released: Path, kind: str) -> None:
    encoder: TextEncoder = (concrete := built(released, kind))
    ids, mask = concrete.tokenize([ENGLISH, MIXED])
    got = encoder.encode([ENGLISH, MIXED])
    want = full(released, kind)(input_ids=ids, attention_mask=mask).last_hidden_state
    assert got.states.shape == {"bert": (2, 16, 24)}.get(kind, (2, 24, 32))
    assert torch.equal(got.mask, mask)
    torch.testing.assert_close(got.states, want, rtol=0, atol=1e-5)


@pytest.mark.feature("C002", "C003")
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_v5_reads_padding_too(released: Path, kind: str) -> None:
    masked = built(released, kind)
    tokenizer = released / f"{kind}-tokenizer"
    reading = type(masked)(read_json(released / kind / "config.json"), tokenizer, masked=False)
    reading.load_state_dict(masked.state_dict())
    ids, mask = reading.tokenize([ENGLISH])
    got = reading.encode([ENGLISH])
    assert torch.equal(got.mask, mask), "who reads the embedding still learns what is padding"
    torch.testing.assert_close(got.states, full(released, kind)(input_ids=ids).last_hidden_state, rtol=0, atol=1e-5)
    assert not torch.allclose(got.states, masked.encode([ENGLISH]).states, atol=1e-4)


@pytest.mark.feature("C003")
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_padded_on_the_right_and_cut(released: Path, kind: str) -> None:
    encoder = built(released, kind)
    ids, mask = encoder.tokenize(["red", "circle " * 100, ""])
    length = {"bert": 16}.get(kind, 24)
    assert ids.shape == mask.shape == (3, length)
    assert mask[0].diff().min() == -1, "ones, then zeros"
    assert mask[1].all()
    end = encoder.tokenizer.sep_token_id if kind == "bert" else encoder.tokenizer.eos_token_id
    assert ids[1, -1] == end, "what is cut ends as a prompt does"
    assert mask[2].sum() == {"bert": 2}.get(kind, 1), "an empty prompt is its special tokens"
    assert built(released, kind, max_length=8).tokenize(["red"])[0].shape == (1, 8)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_prompt_does_not_depend_on_its_neighbours(released: Path, kind: str) -> None:
    encoder = built(released, kind)
    together = encoder.encode([ENGLISH, MIXED, ""])
    for i, prompt in enumerate([ENGLISH, MIXED, ""]):
        assert torch.equal(together.states[i], encoder.encode([prompt]).states[0])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_needed_is_never_read(released: Path, kind: str, tmp_path: Path) -> None:
    extra = {
        "bert": ["pooler.dense.weight", "cls.predictions.bias", "embeddings.position_ids"],
    }.get(kind, ["encoder.embed_tokens.weight", "decoder.block.0.layer.0.SelfAttention.q.weight", "lm_head.weight"])
    tensors = load_file(released / kind / "model.safetensors")
    poisoned = {**tensors, **{name: torch.full((2, 2), torch.nan) for name in extra}}
    (tmp_path / kind).mkdir()
    save_file(poisoned, tmp_path / kind / "model.safetensors")
    (tmp_path / kind / "config.json").write_bytes((released / kind / "config.json").read_bytes())
    (tmp_path / f"{kind}-tokenizer").symlink_to(released / f"{kind}-tokenizer")
    assert built(tmp_path, kind).encode([ENGLISH]).states.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_weights_and_foreign_configs_are_refused(released: Path, kind: str, tmp_path: Path) -> None:
    encoder = built(released, kind)
    with pytest.raises(CheckpointMismatch, match="'qwen2_vl'"):
        type(encoder)({"model_type": "qwen2_vl"}, encoder.tokenizer)
    tensors = load_file(released / kind / "model.safetensors")
    dropped = sorted(tensors)[0]
    (tmp_path / kind).mkdir()
    save_file({n: t for n, t in tensors.items() if n != dropped}, tmp_path / kind / "model.safetensors")
    (tmp_path / kind / "config.json").write_bytes((released / kind / "config.json").read_bytes())
    (tmp_path / f"{kind}-tokenizer").symlink_to(released / f"{kind}-tokenizer")
    with pytest.raises(CheckpointMismatch, match="1 missing"):
        built(tmp_path, kind)


def test_a_vocabulary_of_sentencepiece_is_read_without_its_library(released: Path) -> None:
    pieces = read_pieces(released / "t5-tokenizer" / "spiece.model")
    assert [text for text, _ in pieces.vocabulary[:3]] == ["<pad>", "</s>", "<unk>"]
    assert pieces.unknown == 2
    assert all(score <= 0 for _, score in pieces.vocabulary)


def test_a_normaliser_in_the_vocabulary_is_used(released: Path, tmp_path: Path) -> None:
    """SentencePiece's table for NFKC is a trie; an empty one with no replacements is its smallest example."""
    table = struct.pack("<I", 1024) + b"\0" * 1024
    spec = bytes([2 << 3 | 2]) + bytes([len(table) & 0x7F | 0x80, len(table) >> 7]) + table
    field = bytes([3 << 3 | 2]) + bytes([len(spec) & 0x7F | 0x80, len(spec) >> 7]) + spec
    data = (released / "t5-tokenizer" / "spiece.model").read_bytes() + field
    (tmp_path / "spiece.model").write_bytes(data)
    assert read_pieces(tmp_path / "spiece.model").normaliser == table


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\x05ab", b"\xff" * 40, b"not a vocabulary at all"])
def test_a_damaged_vocabulary_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(data)
    with pytest.raises(CheckpointMismatch, match="not a vocabulary of SentencePiece"):
        load_t5_tokenizer(tmp_path)


@pytest.mark.feature("C003")
def test_a_t5_tokenizer_means_the_same_in_both_spellings(released: Path, tmp_path: Path) -> None:
    ours = load_t5_tokenizer(released / "t5-tokenizer")
    assert ours.convert_tokens_to_ids("<extra_id_0>") == len(ours) - 1, "names for gaps are last, in reverse"
    theirs = T5Tokenizer(vocab=[*read_pieces(released / "t5-tokenizer" / "spiece.model").vocabulary], extra_ids=0)
    for prompt in (ENGLISH, MIXED, "  two   spaces ", ""):
        assert ours(prompt).input_ids == theirs(prompt).input_ids
    ours.save_pretrained(tmp_path)
    again = load_t5_tokenizer(tmp_path)
    assert not (tmp_path / "spiece.model").exists()
    assert again(MIXED).input_ids == ours(MIXED).input_ids


@pytest.mark.feature("C002")
def test_a_bert_tokenizer_means_the_same_in_both_spellings(released: Path, tmp_path: Path) -> None:
    ours = load_bert_tokenizer(released / "bert-tokenizer")
    assert isinstance(ours, BertTokenizer)
    assert ours("A Red CIRCLE").input_ids == ours("a red circle").input_ids, "the released one has no capitals"
    ours.save_pretrained(tmp_path)
    assert load_bert_tokenizer(tmp_path)(MIXED).input_ids == ours(MIXED).input_ids


@pytest.mark.parametrize("load", [load_t5_tokenizer, load_bert_tokenizer])
def test_a_folder_without_tokenizer_is_refused(load: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no tokenizer"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointMismatch):
        load(tmp_path)


def test_the_padded_length_is_at_most_256(released: Path, tmp_path: Path) -> None:
    config = {**texts.T5_CONFIG, "vocab_size": texts.write_t5_tokenizer(tmp_path, max_length=4096)}
    assert T5TextEncoder(config, tmp_path).max_length == 256
