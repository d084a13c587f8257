"""How well a model does what prompts say: generate, read the pixels, count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easyanimate_core.request import GenerationRequest
from easyanimate_train.data.order import generator
from easyanimate_train.shapes import Scene, all_scenes, caption, captions, is_held_out, read, score

if TYPE_CHECKING:
    import torch

    from easyanimate_core.pipeline import Pipeline

__all__ = ["SPLITS", "Cases", "score_prompts"]

SPLITS = ("seen", "held-out")
"""Combinations of attributes that training showed, and those that it never did."""

_BATCH = 10


@dataclass(frozen=True, slots=True)
class Cases:
    """Prompts and what they should show.

    Attributes:
        scenes: what should be seen.
        prompts: what is asked for.
        seed: of the first video; case `i` has `seed + i`.
    """

    scenes: tuple[Scene, ...]
    prompts: tuple[str, ...]
    seed: int

    @classmethod
    def draw(cls, split: str, count: int, *, seed: int = 0, chinese: bool = False) -> Cases:
        """`count` random scenes of a split, without repeats while there are enough, each worded at random."""
        rng = generator("nano score", split, seed)
        pool = [scene for scene in all_scenes() if is_held_out(scene) == (split == "held-out")]
        order = _permutation(len(pool), rng)
        scenes = tuple(pool[order[i % len(pool)]] for i in range(count))
        prompts = tuple(captions(s)[-1] if chinese else caption(s, rng) for s in scenes)
        return cls(scenes, prompts, seed * 1_000_003)


def _permutation(count: int, rng: torch.Generator) -> list[int]:
    import torch

    return [int(i) for i in torch.randperm(count, generator=rng)]


def score_prompts(
    pipeline: Pipeline,
    cases: Cases,
    progress: Callable[[int], None] = lambda done: None,
    **settings: Any,
) -> Mapping[str, float]:
    """Percent right per attribute over generated videos.

    Args:
        pipeline: makes square videos of the shapes world.
        cases: what to make.
        progress: called with videos done.
        settings: fields of `GenerationRequest` that differ from the preset, for example `steps`.

    Returns:
        `shape`, `colour`, `background`, `size`, `motion`, `all` (all five at once), `outline` (overlap with the
        best outline), each in percent, and `seconds` per video.
    """
    pairs, began = [], time.monotonic()
    for start in range(0, len(cases.prompts), _BATCH):
        prompts = cases.prompts[start : start + _BATCH]
        request = GenerationRequest(prompt=prompts, seed=cases.seed + start, model=pipeline.preset.name, **settings)
        video = pipeline(request)
        pairs += [(s, read(f)) for s, f in zip(cases.scenes[start : start + _BATCH], video.frames, strict=True)]
        progress(len(pairs))
    return {**score(pairs), "seconds": (time.monotonic() - began) / len(pairs)}
