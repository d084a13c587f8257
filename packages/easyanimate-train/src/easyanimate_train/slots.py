"""The slots that training opens."""

from __future__ import annotations

from typing import Any, Final

from easyanimate_core.registry import Slot
from easyanimate_train.interfaces import Given, Learnable, Objective, TrainDataset

__all__ = ["DATASETS", "GIVENS", "LEARNABLES", "OBJECTIVES", "PREPARERS", "REWARDS", "TRAIN_SLOTS"]

OBJECTIVES: Final[Slot[Objective]] = Slot("objectives", "say what a model should learn: a loss over a batch")
"""What training minimises."""

LEARNABLES: Final[Slot[Learnable]] = Slot("learnables", "choose the parameters that training changes")
"""Which weights move."""

DATASETS: Final[Slot[TrainDataset]] = Slot("datasets", "give clips and captions by index")
"""What training sees."""

GIVENS: Final[Slot[Given]] = Slot("givens", "fill inlets of the denoiser in training")
"""What a training clip is given besides text: pictures, control videos, cameras."""

REWARDS: Final[Slot[Any]] = Slot("rewards", "judge generated videos")
"""Judges for reward training; nothing is registered yet."""

PREPARERS: Final[Slot[Any]] = Slot("preparers", "take one step of preparing a dataset")
"""Steps of data preparation; nothing is registered yet."""

TRAIN_SLOTS: Final[tuple[Slot[Any], ...]] = (OBJECTIVES, LEARNABLES, DATASETS, GIVENS, REWARDS, PREPARERS)
"""All of the above."""
