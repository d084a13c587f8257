"""Text inside finished files, and digests of the pictures that do not depend on it.

A video's manifest holds digests of its own frames, which are known only when the last one is encoded; text is
therefore put in afterwards, without touching a picture.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import av
import numpy as np
from PIL import Image, ImageSequence

from easyanimate_core.errors import MediaError, UnreadableMedia

__all__ = ["MP4_FLAGS", "gif_comments", "seal", "stored_digest"]

MP4_FLAGS: Final = "+faststart+use_metadata_tags"
"""Index in front, and free metadata keys: without the second, the mp4 muxer silently drops keys it does not know."""

_PNG_HEADER: Final = 8 + 25  # signature and IHDR, after which text chunks belong
_GIF_COMMENT: Final = b"\x21\xfe"
_GIF_END: Final = b"\x3b"
_MOST_IN_A_BLOCK: Final = 255


def seal(path: Path, metadata: Mapping[str, str]) -> None:
    """Put text by key into a finished `.mp4`, `.gif` or `.png`; pictures stay as they are, bit by bit.

    Raises:
        MediaError: the file is not whole.
        FFmpegError, OSError: the disk is full, for example.
    """
    match path.suffix.lower():
        case ".png":
            _seal_png(path, metadata)
        case ".gif":
            _seal_gif(path, metadata)
        case _:
            _seal_mp4(path, metadata)


def stored_digest(path: Path) -> str:
    """SHA-256 of the pictures as a file holds them, whatever text is beside them.

    Of an mp4: the decoder's setup and all coded packets. Of other files: RGB pixels, frame by frame.

    Raises:
        FFmpegError, OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    if path.suffix.lower() in (".png", ".gif"):
        with Image.open(path) as picture:
            for frame in ImageSequence.Iterator(picture):
                digest.update(np.asarray(frame.convert("RGB")).tobytes())
        return digest.hexdigest()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        digest.update(stream.codec_context.extradata or b"")
        for packet in container.demux(stream):
            digest.update(bytes(packet))
    return digest.hexdigest()


def gif_comments(path: Path) -> dict[str, str]:
    """Comments of a gif as text by key; one that was not written by `seal` is called `comment`.

    Raises:
        UnreadableMedia: the file is no gif, or is cut off.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file:
        if file.read(3) != b"GIF":
            raise UnreadableMedia(f"cannot read '{path}': it is no gif", "It may be damaged, or have a wrong name.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                for comment in _comments(data):
                    key, colon, value = comment.decode("utf-8", "replace").partition(": ")
                    found[key if colon else "comment"] = value if colon else key
            except IndexError as error:
                raise UnreadableMedia(f"'{path}' is damaged or cut off", "Copy it again.") from error
    return found


def _seal_mp4(path: Path, metadata: Mapping[str, str]) -> None:
    """Copy the coded packets into a new file with the text."""
    beside = path.with_name(f"{path.name}.sealed")
    try:
        with (
            av.open(str(path)) as plain,
            av.open(str(beside), "w", format="mp4", options={"movflags": MP4_FLAGS}) as sealed,
        ):
            sealed.metadata.update(metadata)
            source = plain.streams.video[0]
            stream = sealed.add_stream_from_template(source)
            for packet in plain.demux(source):
                if packet.dts is not None:  # the last, empty one only says that the file ends
                    packet.stream = stream
                    sealed.mux(packet)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _seal_png(path: Path, metadata: Mapping[str, str]) -> None:
    """Text chunks (iTXt, UTF-8) after the header. W3C PNG, section 11.3.4.5."""
    data = path.read_bytes()
    chunks = b"".join(
        _chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + value.encode()) for key, value in metadata.items()
    )
    path.write_bytes(data[:_PNG_HEADER] + chunks + data[_PNG_HEADER:])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _seal_gif(path: Path, metadata: Mapping[str, str]) -> None:
    """Comment extensions before the trailer. GIF89a, section 24."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != _GIF_END:
            raise MediaError(f"'{path}' is not finished", "Write it again.")
        file.seek(-1, os.SEEK_END)
        for key, value in metadata.items():
            text = f"{key}: {value}".encode()
            parts = (text[at : at + _MOST_IN_A_BLOCK] for at in range(0, len(text), _MOST_IN_A_BLOCK))
            file.write(_GIF_COMMENT + b"".join(bytes([len(part)]) + part for part in parts) + b"\0")
        file.write(_GIF_END)


def _comments(data: mmap.mmap) -> Iterator[bytes]:
    """Walk over the blocks of a GIF89a file, section by section, and give the comments."""
    at = 13 + _table_bytes(data[10])
    while data[at : at + 1] != _GIF_END:
        if data[at] == 0x21:  # an extension: label, sub-blocks
            text, end = _sub_blocks(data, at + 2)
            if data[at : at + 2] == _GIF_COMMENT:
                yield text
        else:  # an image: descriptor, perhaps a palette, one byte, sub-blocks
            _, end = _sub_blocks(data, at + 10 + _table_bytes(data[at + 9]) + 1)
        at = end


def _table_bytes(flags: int) -> int:
    """Length of a colour table, by the flags before it."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _sub_blocks(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    """The joined bytes of sub-blocks from `at`, and where they end."""
    parts = []
    while length := data[at]:
        parts.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    return b"".join(parts), at + 1
