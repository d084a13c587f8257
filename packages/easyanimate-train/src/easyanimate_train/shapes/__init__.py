"""The procedural world that the nano models are trained on and measured by."""

from easyanimate_train.shapes.caption import caption, caption_change, caption_colours, captions, parse
from easyanimate_train.shapes.evaluator import Reading, read, score
from easyanimate_train.shapes.world import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Placement,
    Scene,
    all_scenes,
    is_held_out,
    outline,
    place,
    render,
)

__all__ = [
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SIZES",
    "Placement",
    "Reading",
    "Scene",
    "all_scenes",
    "caption",
    "caption_change",
    "caption_colours",
    "captions",
    "is_held_out",
    "outline",
    "parse",
    "place",
    "read",
    "render",
    "score",
]
