"""What a model makes of pictures, outlines and cameras: one clip of the world per case, generated again, and measured.

Every case draws a scene of its split, gives the model a part of what the world's own clip shows, and judges the result
by pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch

from easyanimate_core.request import GenerationRequest
from easyanimate_train.data.order import generator
from easyanimate_train.shapes import (
    COLOURS,
    Reading,
    Scene,
    all_scenes,
    caption,
    caption_colours,
    is_held_out,
    outline,
    place,
    read,
    render,
)
from easyanimate_train.shapes.evaluator import overlap
from easyanimate_train.shapes.views import MOVES, Camera, draw_view, poses, read_move, render_view

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from easyanimate_core.pipeline import Pipeline

__all__ = ["TRIALS", "Case", "score_trial"]

_SPREAD = 8 / 64
_FIELDS = ("shape", "colour", "background", "size", "motion")
_CLEAR = 30.0  # dB


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to make.

    Attributes:
        prompt: what is asked for.
        conditions: what is given besides.
        judge: frames `(3, F, H, W)` in 0…1 to measured values; shares are 0 or 1.
        note: what is given, in a word, where pictures cannot show it.
    """

    prompt: str
    conditions: tuple[Mapping[str, Any], ...]
    judge: Callable[[Tensor], Mapping[str, float]]
    note: str = ""


def _psnr(one: Tensor, two: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0…1."""
    return float(-10 * (one - two).pow(2).mean().clamp(min=1e-9).log10())


def _attributes(scene: Scene, reading: Reading) -> dict[str, float]:
    hits = {f: float(reading.scene is not None and getattr(reading.scene, f) == getattr(scene, f)) for f in _FIELDS}
    return {**hits, "all": min(hits.values())}


def _clip(scene: Scene, rng: Generator) -> Tensor:
    return render([scene], [place(rng, _SPREAD)])[0]


def _picture(scene: Scene, rng: Generator) -> Case:
    """The first frame is given, and a caption of the whole scene: it is kept, and moves as it is said."""
    clip = _clip(scene, rng)

    def judge(frames: Tensor) -> Mapping[str, float]:
        psnr = _psnr(frames[:, 0], clip[:, 0])
        return {**_attributes(scene, read(frames)), "psnr": psnr, "clear": float(psnr >= _CLEAR)}

    return Case(caption(scene, rng), ({"name": "frames", "start": clip[:, 0]},), judge)


def _ends(scene: Scene, rng: Generator) -> Case:
    """The first and the last frame are given, and a caption: the video connects them."""
    clip = _clip(scene, rng)

    def judge(frames: Tensor) -> Mapping[str, float]:
        first, last = (_psnr(frames[:, i], clip[:, i]) for i in (0, -1))
        whole = _psnr(frames[:, ::4], clip[:, ::4])
        return {**_attributes(scene, read(frames)), "psnr": first, "psnr_last": last, "psnr_between": whole}

    return Case(caption(scene, rng), ({"name": "frames", "start": clip[:, 0], "end": clip[:, -1]},), judge)


def _conflict(scene: Scene, rng: Generator) -> Case:
    """The first frame is given, and the caption says other colours: the video follows the picture."""
    clip = _clip(scene, rng)
    others = [colour for colour in COLOURS if colour not in (scene.colour, scene.background)]
    order = torch.randperm(len(others), generator=rng).tolist()
    said = Scene(scene.shape, others[order[0]], others[order[1]], scene.size, scene.motion)

    def judge(frames: Tensor) -> Mapping[str, float]:
        hits = _attributes(scene, read(frames))
        return {**hits, "follows": min(hits["colour"], hits["background"])}

    return Case(caption(said, rng), ({"name": "frames", "start": clip[:, 0]},), judge)


def _outline(scene: Scene, rng: Generator) -> Case:
    """The outline is given as a control video, and a caption that says colours alone."""
    where = place(rng, _SPREAD)
    given = outline([scene], [where])[0]
    covered = render([Scene(scene.shape, "white", "black", scene.size, scene.motion)], [where])[0]
    dark, light = COLOURS["black"][0], COLOURS["white"][0]
    mask = ((covered[0] - dark) / (light - dark)).clamp(0, 1)

    def judge(frames: Tensor) -> Mapping[str, float]:
        return {**_attributes(scene, read(frames)), "iou": overlap(frames, mask)}

    return Case(caption_colours(scene, rng), ({"name": "control-video", "video": given},), judge)


def _view(scene: Scene, rng: Generator, *, picture: bool) -> Case:
    view = draw_view(rng)
    name = tuple(MOVES)[int(torch.randint(len(MOVES), (), generator=rng))]
    camera = Camera(((name, 0.5 + 0.5 * torch.rand((), generator=rng).item()),))
    clip = render_view(scene, view, camera)

    def judge(frames: Tensor) -> Mapping[str, float]:
        values = {"direction": float(read_move(frames) == name)}
        if picture:
            values |= {"psnr": _psnr(frames[:, 0], clip[:, 0]), "psnr_whole": _psnr(frames[:, ::4], clip[:, ::4])}
        return values

    rows = [(0.0, *camera.lens, 0.0, 0.0, *pose.flatten().tolist()) for pose in poses(camera, clip.shape[1])]
    conditions: list[Mapping[str, Any]] = [{"name": "camera", "poses": rows}]
    if picture:
        conditions.append({"name": "reference", "image": clip[:, 0]})
    return Case(caption(scene, rng), tuple(conditions), judge, note=name)


def _camera(scene: Scene, rng: Generator) -> Case:
    """A camera's path is given, and a caption: the scene is seen as that camera would see it."""
    return _view(scene, rng, picture=False)


def _camera_picture(scene: Scene, rng: Generator) -> Case:
    """As `camera`, with the first frame as a reference picture."""
    return _view(scene, rng, picture=True)


_Draw: TypeAlias = Callable[[Scene, "Generator"], Case]

TRIALS: Final[Mapping[str, _Draw]] = MappingProxyType(
    {
        "picture": _picture,
        "ends": _ends,
        "conflict": _conflict,
        "outline": _outline,
        "camera": _camera,
        "camera-picture": _camera_picture,
    }
)
"""What can be given besides a prompt, and is measured."""


def score_trial(
    pipeline: Pipeline,
    trial: str,
    split: str,
    count: int,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    **settings: Any,
) -> Mapping[str, float]:
    """Mean of every measured value over some cases; shares are in percent.

    Args:
        pipeline: makes square videos of the shapes world.
        trial: one of `TRIALS`.
        split: `seen` or `held-out` combinations of attributes.
        count: cases.
        seed: of cases and noise.
        progress: called with videos done.
        settings: fields of `GenerationRequest` that differ from the preset.

    Returns:
        What the trial's judge measures, `psnr…` in dB, and `seconds` per video.
    """
    pool = [scene for scene in all_scenes() if is_held_out(scene) == (split == "held-out")]
    if trial.startswith("camera"):
        pool = [scene for scene in pool if scene.motion == "still"]
    order = torch.randperm(len(pool), generator=generator("nano trial", trial, split, seed)).tolist()
    totals: dict[str, float] = {}
    began = time.monotonic()
    for number in range(count):
        rng = generator("nano trial", trial, split, seed, number)
        case = TRIALS[trial](pool[order[number % len(pool)]], rng)
        request = GenerationRequest(
            prompt=case.prompt,
            conditions=case.conditions,
            seed=seed * 1_000_003 + number,
            model=pipeline.preset.name,
            **settings,
        )
        for name, value in case.judge(pipeline(request).frames[0]).items():
            totals[name] = totals.get(name, 0.0) + value
        progress(number + 1)
    means = {name: total / count * (1 if name.startswith("psnr") else 100) for name, total in totals.items()}
    return {**means, "seconds": (time.monotonic() - began) / count}
