"""Tiny text and image encoders of V1 to V5 with random weights, and tokenizers trained on a few strings."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from easyanimate_core.checkpoints.save import save_component, write_json
from easyanimate_core.images.clip import ClipImageEncoder
from easyanimate_core.testing.tiny.folders import cast, seeded
from easyanimate_core.text.bert import BertTextEncoder
from easyanimate_core.text.t5 import T5TextEncoder

__all__ = [
    "BERT_CONFIG",
    "CLIP_CONFIG",
    "T5_CONFIG",
    "write_bert",
    "write_bert_tokenizer",
    "write_clip",
    "write_t5",
    "write_t5_tokenizer",
]

T5_CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["T5EncoderModel"],
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 32,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}
"""`config.json` of `write_t5`; `vocab_size` comes from the tokenizer. mT5 differs in its `model_type` only."""

BERT_CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
"""`config.json` of `write_bert`; `vocab_size` comes from the tokenizer."""

CLIP_CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "model_type": "clip_vision_model",
    "hidden_size": 20,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 12,
    "patch_size": 4,
    "projection_dim": 8,
    "hidden_act": "quick_gelu",
    "torch_dtype": "float32",
}
"""`config.json` of `write_clip`; V3's has a `projection_dim` of 768."""

_CORPUS: Final = (
    "a red circle moving right on a blue background",
    "a small green star growing on a white background",
    "红色 的 圆 在 蓝色 背景 上 移动",
)


def write_t5(
    folder: str | Path,
    tokenizer: str | Path,
    *,
    model_type: str = "t5",
    max_length: int = 24,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a T5 or mT5 encoder and its tokenizer.

    Args:
        folder: becomes `text_encoder/` or `text_encoder_2/`.
        tokenizer: becomes `tokenizer/` or `tokenizer_2/`.
        model_type: `"t5"` or `"mt5"`.
        max_length: of the tokenizer.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The first folder.
    """
    size = write_t5_tokenizer(tokenizer, max_length=max_length, extra_ids=0 if model_type == "mt5" else 100)
    config = {**T5_CONFIG, "model_type": model_type, "vocab_size": size}
    with seeded(seed):
        weights = T5TextEncoder(config, Path(tokenizer)).released_state_dict()
    return save_component(Path(folder), config, cast(weights, dtype), weights="model.safetensors")


def write_bert(
    folder: str | Path,
    tokenizer: str | Path,
    *,
    max_length: int = 16,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a BERT and its tokenizer; arguments as of `write_t5`."""
    config = {**BERT_CONFIG, "vocab_size": write_bert_tokenizer(tokenizer, max_length=max_length)}
    with seeded(seed):
        weights = BertTextEncoder(config, Path(tokenizer)).released_state_dict()
    return save_component(Path(folder), config, cast(weights, dtype), weights="model.safetensors")


def write_clip(folder: str | Path, *, projection: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write the `image_encoder/` folder of a CLIP whose pictures are 12 × 12 pixels: 9 tokens of width 20.

    Args:
        folder: becomes the component's folder.
        projection: width of the pooled vector; V3 takes 768.
        seed: same seed, same weights.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    config = {**CLIP_CONFIG, "projection_dim": projection}
    with seeded(seed):
        weights = ClipImageEncoder(config).released_state_dict()
    place = save_component(Path(folder), config, cast(weights, dtype), weights="model.safetensors")
    side = int(config["image_size"])
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
    }
    write_json(place / "preprocessor_config.json", processor)
    return place


def write_t5_tokenizer(
    folder: str | Path, *, corpus: Sequence[str] = _CORPUS, max_length: int = 24, extra_ids: int = 100
) -> int:
    """Train a vocabulary of T5's kind on a few strings and write it as `spiece.model`.

    Returns:
        Its size, with the names for gaps.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    unigram.train_from_iterator(corpus, trainer)
    pieces = json.loads(unigram.to_str())["model"]["vocab"]
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    model = b"".join(_field(1, _piece(text, score, kinds.get(text, 1))) for text, score in pieces)
    (place / "spiece.model").write_bytes(model)
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": max_length, "extra_ids": extra_ids}
    write_json(place / "tokenizer_config.json", settings)
    return len(pieces) + extra_ids


def write_bert_tokenizer(folder: str | Path, *, corpus: Sequence[str] = _CORPUS, max_length: int = 16) -> int:
    """Train a vocabulary of BERT's kind on a few strings and write it as `vocab.txt`.

    Returns:
        Its size.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    pieces.train_from_iterator(corpus, trainer)
    words = sorted(pieces.get_vocab().items(), key=lambda item: item[1])
    (place / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words), "utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": max_length}
    write_json(place / "tokenizer_config.json", settings)
    return len(words)


def _piece(text: str, score: float, kind: int) -> bytes:
    """One piece as a message of protocol buffers; see `text.sentencepiece`."""
    return _field(1, text.encode("utf-8")) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])


def _field(number: int, data: bytes) -> bytes:
    """A field that holds bytes, fewer than 16384 of them."""
    length = len(data)
    size = bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])
    return bytes([number << 3 | 2]) + size + data
