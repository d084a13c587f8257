"""The contract of the slot `image_encoders`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from easyanimate_core.testing.contracts.contract import Contract, close, draw, ensure, rule
from easyanimate_core.testing.tiny.folders import seeded

if TYPE_CHECKING:
    from easyanimate_core.data import ImageEmbedding

__all__ = ["ImageEncoderContract"]

_SIZES = ((32, 32), (17, 40), (48, 9))


class ImageEncoderContract(Contract):
    """An `ImageEncoder`: shapes, pictures of any size, and pictures that do not disturb each other.

    Attributes:
        config: content of a small `image_encoder/config.json`.
        processor: content of its `preprocessor_config.json`, if it has one.
        tolerance: largest difference of a picture's tokens when it is encoded beside others.
    """

    slot: ClassVar[str] = "image_encoders"
    config: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    processor: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    tolerance: ClassVar[float] = 1e-5

    def create(self) -> Any:
        """A new encoder with random weights, by the call that a checkpoint's loader makes."""
        ensure(bool(self.config), "the contract has no `config`: say that of a small one")
        with seeded(0):
            encoder = self.registry().load(self.component)(dict(self.config), dict(self.processor))
        return encoder.eval() if isinstance(encoder, nn.Module) else encoder

    def pictures(self, count: int = 2, height: int = 32, width: int = 32) -> Tensor:
        """Smooth pictures `(B, 3, H, W)` in 0…1, each another."""
        small = draw(count, 3, 4, 4).sigmoid()
        large = nn.functional.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
        return large.clamp(0, 1)

    def encode(self, pixels: Tensor, encoder: Any = None) -> ImageEmbedding:
        """The pictures as a conditioner encodes them, without gradients."""
        with torch.no_grad():
            embedding: ImageEmbedding = (encoder or self.create()).encode_image(pixels)
        return embedding

    @rule
    def test_tokens_and_vector_have_their_shapes(self) -> None:
        """Tokens are `(B, n, D)` with n a square number, the pooled vector is `(B, P)`; both are finite numbers.

        If this fails: see `easyanimate_core.data.ImageEmbedding`. A token for the picture as a whole does not belong
        among those of its patches.
        """
        got = self.encode(self.pictures())
        tokens, pooled = got.tokens, got.pooled
        ensure(tokens.ndim == 3 and tokens.shape[0] == 2, f"tokens have the shape '{tuple(tokens.shape)}'")
        ensure(math.isqrt(tokens.shape[1]) ** 2 == tokens.shape[1], f"there are '{tokens.shape[1]}' tokens")
        ensure(pooled.ndim == 2 and pooled.shape[0] == 2, f"the vector has the shape '{tuple(pooled.shape)}'")
        for name, value in (("tokens", tokens), ("the vector", pooled)):
            ensure(value.is_floating_point() and value.isfinite().all(), f"{name}: not finite floating-point numbers")

    @rule
    def test_pictures_of_any_size_have_as_many_tokens(self) -> None:
        """Square, wide and tall pictures, small and large, give tokens of one shape.

        If this fails: bring pictures to the encoder's size yourself; who gives them does not know it.
        """
        encoder = self.create()
        shapes = {tuple(self.encode(self.pictures(1, *size), encoder).tokens.shape) for size in _SIZES}
        ensure(len(shapes) == 1, f"tokens have the shapes '{sorted(shapes)}'")

    @rule
    def test_pictures_do_not_disturb_each_other(self) -> None:
        """A picture's tokens and vector do not depend on its neighbours in the batch.

        If this fails: something is normalised over the whole batch.
        """
        encoder, pictures = self.create(), self.pictures(3)
        together = self.encode(pictures, encoder)
        for index in range(3):
            alone = self.encode(pictures[index : index + 1], encoder)
            close(together.tokens[index : index + 1], alone.tokens, self.tolerance, f"picture {index} beside others")
            close(together.pooled[index : index + 1], alone.pooled, self.tolerance, f"the vector of picture {index}")

    @rule
    def test_encoding_repeats_and_leaves_the_picture_alone(self) -> None:
        """The same picture gives the same tokens, bit by bit, and is not changed.

        If this fails: dropout is on, or pixels are prepared in place.
        """
        encoder, pictures = self.create(), self.pictures()
        before, first = pictures.clone(), self.encode(pictures, encoder)
        again = self.encode(pictures, encoder)
        close(again.tokens, first.tokens, 0, "a repeat")
        close(again.pooled, first.pooled, 0, "the vector of a repeat")
        close(pictures, before, 0, "the picture itself")

    @rule
    def test_pictures_make_a_difference(self) -> None:
        """Another picture gives other tokens and another vector.

        If this fails: the tokens are not those of the picture's patches.
        """
        got = self.encode(self.pictures())
        ensure(not torch.equal(got.tokens[0], got.tokens[1]), "two pictures have the same tokens")
        ensure(not torch.equal(got.pooled[0], got.pooled[1]), "two pictures have the same vector")

    @rule
    def test_it_computes_in_its_own_dtype(self) -> None:
        """An encoder in bfloat16 takes float32 pixels and gives finite bfloat16 tokens.

        If this fails: bring the prepared pixels to the dtype and the device of the weights.
        """
        encoder = self.create()
        if isinstance(encoder, nn.Module):
            got = self.encode(self.pictures(), encoder.to(torch.bfloat16))
            ensure(got.tokens.dtype == got.pooled.dtype == torch.bfloat16, f"tokens are '{got.tokens.dtype}'")
            ensure(got.tokens.isfinite().all(), "tokens are not finite")
