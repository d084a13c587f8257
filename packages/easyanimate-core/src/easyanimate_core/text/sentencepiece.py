"""Vocabulary files of SentencePiece (`spiece.model`), read without the library that wrote them.

Such a file is one protocol-buffers message, `ModelProto` of `sentencepiece_model.proto`: field 1, repeated, is a piece
(1 text, 2 score as float32, 3 kind); field 3 says how text is normalised (2 is the table of the normaliser). Everything
else configures training. Kudo and Richardson, "SentencePiece" (2018).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from easyanimate_core.errors import CheckpointMismatch

__all__ = ["Pieces", "read_pieces"]

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_UNKNOWN = 2


@dataclass(frozen=True, slots=True)
class Pieces:
    """A vocabulary.

    Attributes:
        vocabulary: pieces with their log probabilities; a piece's place is its id.
        unknown: id of the piece that stands for what is not in the vocabulary.
        normaliser: precompiled table of characters and what they become; empty when nothing is normalised.
    """

    vocabulary: tuple[tuple[str, float], ...]
    unknown: int
    normaliser: bytes


def read_pieces(path: Path) -> Pieces:
    """Read a `spiece.model`.

    Raises:
        CheckpointMismatch: the file is damaged, or something else.
    """
    pieces: list[tuple[str, float]] = []
    kinds: list[int] = []
    normaliser = b""
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1 and isinstance(value, bytes):
                piece = dict(_fields(value))
                pieces.append((_data(piece[1]).decode("utf-8"), float(piece.get(2, 0.0))))
                kinds.append(int(piece.get(3, 1)))
            elif number == 3 and isinstance(value, bytes):
                normaliser = _data(dict(_fields(value)).get(2, b""))
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise CheckpointMismatch(
            f"'{path}' is not a vocabulary of SentencePiece: {error}", "Fetch it again."
        ) from error
    if _UNKNOWN not in kinds:
        raise CheckpointMismatch(f"'{path}' is not a vocabulary of SentencePiece", "Fetch it again.")
    return Pieces(tuple(pieces), kinds.index(_UNKNOWN), normaliser)


def _data(value: bytes | int | float) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a number stands where text should")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """Numbers and values of a message's fields, in order."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: bytes | int | float
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("it ends too early")
            value, at = data[at : at + length], at + length
        elif kind == _FOUR_BYTES:
            (value,), at = struct.unpack_from("<f", data, at), at + 4
        elif kind == _EIGHT_BYTES:
            (value,), at = struct.unpack_from("<d", data, at), at + 8
        else:
            raise ValueError(f"field {number} is of the unknown kind {kind}")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
