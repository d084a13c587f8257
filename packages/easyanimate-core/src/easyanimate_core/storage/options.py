"""Options of storages. Pydantic only; no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from easyanimate_core.schema import Hint, Model

__all__ = ["Float8Options", "Int8Options"]


class Int8Options(Model):
    """Keep weights of linear layers as whole numbers −127…127 and one scale per output."""

    only: Annotated[tuple[str, ...], Field(min_length=1), Hint(advanced=True)] = ("denoiser",)
    """Components that are kept so: roles (`text`, `denoiser`) or class names (`Qwen2VLTextEncoder`)."""


class Float8Options(Model):
    """Keep weights of linear layers as float8 (e4m3)."""

    only: Annotated[tuple[str, ...], Field(min_length=1), Hint(advanced=True)] = ("denoiser",)
    """Components that are kept so: roles (`text`, `denoiser`) or class names (`Qwen2VLTextEncoder`)."""

    scaled: Annotated[bool, Hint(advanced=True)] = True
    """One scale per output: small weights keep their precision. Without it, weights below 0.016 lose theirs."""

    everything: Annotated[bool, Hint(advanced=True)] = False
    """Norms, biases, convolutions and embeddings too, all but `embed_tokens`, as in the original."""
