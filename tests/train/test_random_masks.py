"""Masks for image-to-video training: the recorded kinds, their shares, and what each hides."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tests.golden import Call, load_case

from easyanimate_train.data.random_masks import KINDS, PICTURE_KINDS, draw_kind, random_mask

MASKS = [call for call in load_case("data").calls if call.op == "random_mask"]
NAMES = tuple(KINDS)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def describe(mask: torch.Tensor) -> dict[str, bool]:
    """What tells the kinds apart."""
    hidden = mask[:, 0].flatten(1)
    whole = bool(((hidden.mean(1) == 0) | (hidden.mean(1) == 1)).all())
    return {
        "whole frames": whole,
        "same in all frames": bool((hidden == hidden[:1]).all()),
        "first given": bool(hidden[0].sum() == 0),
        "all": bool(hidden.min() == 1),
    }


@pytest.mark.feature("T019")
@pytest.mark.parametrize("call", MASKS, ids=str)
def test_recorded_masks_are_examples_of_our_kinds(call: Call) -> None:
    """The original draws from three generators, so its masks cannot be repeated; each must be one of ours in kind."""
    recorded, (frames, _, height, width) = call.expected["mask"].float(), call.kwargs["shape"]
    kind = NAMES[call.kwargs["kind"]]
    assert kind in (KINDS if frames > 1 else PICTURE_KINDS)
    ours = [describe(random_mask(frames, height, width, rng(seed), kind=kind)) for seed in range(200)]
    assert random_mask(frames, height, width, rng(), kind=kind).shape == recorded.shape
    assert describe(recorded) in ours


@pytest.mark.feature("T019")
@pytest.mark.parametrize(("frames", "shares"), [(9, KINDS), (1, PICTURE_KINDS)])
def test_kinds_are_drawn_by_their_shares(frames: int, shares: dict[str, float]) -> None:
    generator, many = rng(), 20_000
    seen = Counter(draw_kind(frames, generator) for _ in range(many))
    assert sum(shares.values()) == pytest.approx(1)
    for kind, share in shares.items():
        assert seen[kind] / many == pytest.approx(share, abs=0.01)


@pytest.mark.feature("T019")
def test_start_and_end_pictures_are_given() -> None:
    lengths = Counter(int(random_mask(17, 8, 8, rng(s), kind="after_start")[:, 0, 0, 0].sum()) for s in range(200))
    assert set(lengths) == {13, 14, 15, 16}
    for seed in range(50):
        hidden = random_mask(17, 8, 8, rng(seed), kind="between")[:, 0, 0, 0]
        assert hidden[0] == hidden[-1] == 0
        assert hidden.sum() in (9, 11, 13, 15)


@pytest.mark.feature("T019")
def test_small_boxes_lie_inside_and_on_at_most_half_the_frames() -> None:
    for seed in range(50):
        mask = random_mask(9, 12, 16, rng(seed), kind="small_boxes")[:, 0]
        used = mask.flatten(1).any(1)
        assert 1 <= used.sum() <= 4
        assert mask.sum((1, 2)).max() <= 3 * 4


def test_masks_follow_the_generator_and_hold_only_zeros_and_ones() -> None:
    for seed in range(100):
        mask = random_mask(5, 16, 16, rng(seed))
        assert torch.equal(mask, random_mask(5, 16, 16, rng(seed)))
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
