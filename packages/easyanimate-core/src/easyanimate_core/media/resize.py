"""Sizes from the shape of a picture: the ratio buckets that released models were trained in."""

from __future__ import annotations

from typing import Final

__all__ = ["BUCKETS", "BUCKETS_BASE", "bucket_size"]

BUCKETS_BASE: Final = 512
"""Side of the square that every bucket has about as many pixels as."""

BUCKETS: Final = (
    (0.25, 256, 1024),
    (0.26, 256, 992),
    (0.27, 256, 960),
    (0.28, 256, 928),
    (0.32, 288, 896),
    (0.33, 288, 864),
    (0.35, 288, 832),
    (0.4, 320, 800),
    (0.42, 320, 768),
    (0.48, 352, 736),
    (0.5, 352, 704),
    (0.52, 352, 672),
    (0.57, 384, 672),
    (0.6, 384, 640),
    (0.68, 416, 608),
    (0.72, 416, 576),
    (0.78, 448, 576),
    (0.82, 448, 544),
    (0.88, 480, 544),
    (0.94, 480, 512),
    (1.0, 512, 512),
    (1.07, 512, 480),
    (1.13, 544, 480),
    (1.21, 544, 448),
    (1.29, 576, 448),
    (1.38, 576, 416),
    (1.46, 608, 416),
    (1.67, 640, 384),
    (1.75, 672, 384),
    (2.0, 704, 352),
    (2.09, 736, 352),
    (2.4, 768, 320),
    (2.5, 800, 320),
    (2.89, 832, 288),
    (3.0, 864, 288),
    (3.11, 896, 288),
    (3.62, 928, 256),
    (3.75, 960, 256),
    (3.88, 992, 256),
    (4.0, 1024, 256),
)
"""Ratio of height to width, rounded as it is compared; height and width in pixels. Chen et al., "PixArt-α" (2023)."""

_MULTIPLE: Final = 16


def bucket_size(height: int, width: int, base: int) -> tuple[int, int]:
    """Height and width of the bucket whose ratio is nearest to a picture's, the first of two that are as near.

    Args:
        height: of the picture, in any unit.
        width: of the picture, in the same unit.
        base: side of a square with about as many pixels as the result, at least 32.

    Returns:
        Multiples of 16 pixels.
    """
    ratio = height / width
    _, tall, wide = min(BUCKETS, key=lambda bucket: abs(bucket[0] - ratio))
    fitted = (int(side * base / BUCKETS_BASE / _MULTIPLE) * _MULTIPLE for side in (tall, wide))
    return next(fitted), next(fitted)
