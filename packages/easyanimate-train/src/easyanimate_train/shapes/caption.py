"""Scenes to captions and back. A size that is not said is large."""

from __future__ import annotations

import re
from types import MappingProxyType

import torch
from torch import Generator

from easyanimate_train.shapes.world import COLOURS, SHAPES, SIZES, Scene

__all__ = ["caption", "caption_change", "caption_colours", "captions", "parse"]

_WORDS = MappingProxyType(
    {
        "left": ("moving left", "moving to the left", "sliding left"),
        "right": ("moving right", "moving to the right", "sliding right"),
        "up": ("moving up", "rising", "going up"),
        "down": ("moving down", "falling", "going down"),
        "growing": ("growing", "getting bigger", "growing larger"),
        "shrinking": ("shrinking", "getting smaller", "growing smaller"),
        "still": ("standing still", "not moving", "at rest"),
    }
)
_CHINESE = MappingProxyType(
    {
        "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形",
        "red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色",
        "orange": "橙色", "purple": "紫色", "white": "白色", "black": "黑色",
        "small": "小", "large": "大",
        "left": "向左移动", "right": "向右移动", "up": "向上移动", "down": "向下移动",
        "growing": "逐渐变大", "shrinking": "逐渐变小", "still": "静止不动",
    }
)  # fmt: skip
_ENGLISH = (
    "a {size}{colour} {shape} {motion} on a {background} background",
    "{size}{colour} {shape} {motion}, {background} background",
    "on a {background} background, a {size}{colour} {shape} is {motion}",
    "a {size}{colour} {shape} {motion} over {background}",
    "a video of a {size}{colour} {shape} {motion} on {background}",
)
_CHINESE_FORM = "{background}背景上，一个{size}{colour}{shape}{motion}"
_CHINESE_SHARE = 0.15
_CHANGE_ONLY, _AGREES = 0.3, 0.1
_CHANGES = ("{motion}", "it is {motion}", "a shape {motion}", "a video of a {shape} {motion}", "a {shape} is {motion}")
_COLOURED = (
    "a {colour} shape on a {background} background",
    "a {colour} shape, {background} background",
    "{colour} on {background}",
    "a video of a {colour} shape on {background}",
)


def captions(scene: Scene) -> tuple[str, ...]:
    """Every way to say a scene: English templates times synonyms, then Chinese."""
    sizes = (f"{scene.size} ",) if scene.size == "small" else ("large ", "")
    english = tuple(
        form.format(size=size, colour=scene.colour, shape=scene.shape, motion=motion, background=scene.background)
        for form in _ENGLISH
        for size in sizes
        for motion in _WORDS[scene.motion]
    )
    return (*english, _chinese(scene))


def _chinese(scene: Scene) -> str:
    return _CHINESE_FORM.format(
        **{field: _CHINESE[getattr(scene, field)] for field in ("background", "size", "colour", "shape", "motion")}
    )


def caption(scene: Scene, rng: Generator) -> str:
    """One random way to say a scene; Chinese in 15 of 100 cases."""
    if torch.rand((), generator=rng).item() < _CHINESE_SHARE:
        return _chinese(scene)
    english = captions(scene)[:-1]
    return english[int(torch.randint(len(english), (), generator=rng))]


def caption_change(scene: Scene, rng: Generator) -> str:
    """One random way to say what happens to a scene that a picture shows.

    Three in ten leave appearance out, one says it, and six say another one: what is seen in the picture counts, and
    guidance must not pull away from it.
    """
    kind = torch.rand((), generator=rng).item()
    if kind < _CHANGE_ONLY:
        if torch.rand((), generator=rng).item() < _CHINESE_SHARE:
            return _CHINESE[scene.motion]
        form = _CHANGES[int(torch.randint(len(_CHANGES), (), generator=rng))]
        words = _WORDS[scene.motion]
        return form.format(motion=words[int(torch.randint(len(words), (), generator=rng))], shape=scene.shape)
    if kind < _CHANGE_ONLY + _AGREES:
        return caption(scene, rng)
    looks = [list(values)[int(torch.randint(len(values), (), generator=rng))] for values in (SHAPES, COLOURS, SIZES)]
    grounds = [colour for colour in COLOURS if colour != looks[1]]
    ground = grounds[int(torch.randint(len(grounds), (), generator=rng))]
    return caption(Scene(looks[0], looks[1], ground, looks[2], scene.motion), rng)


def caption_colours(scene: Scene, rng: Generator) -> str:
    """One random way to say a scene's colours, and nothing else."""
    form = _COLOURED[int(torch.randint(len(_COLOURED), (), generator=rng))]
    return form.format(colour=scene.colour, background=scene.background)


def parse(text: str) -> Scene | None:
    """The scene that a caption says, or `None` when it is not a caption of this world."""
    lowered = text.lower()
    translated = lowered
    for english, chinese in sorted(_CHINESE.items(), key=lambda pair: -len(pair[1])):
        translated = translated.replace(chinese, f" {english} ")
    if translated != lowered:
        translated = re.sub(r"(\w+)\s+背景上", r"on a \1 background", translated)
    words = re.findall(r"[a-z]+", translated)
    colours = [w for w in words if w in COLOURS]
    shape = next((w for w in words if w in SHAPES), None)
    phrases = [(p, motion) for motion, options in _WORDS.items() for p in (*options, motion)]
    joined = " ".join(words)
    motion = next((m for p, m in sorted(phrases, key=lambda pm: -len(pm[0])) if p in joined), None)
    if shape is None or motion is None or len(colours) != 2:
        return None
    # The object's colour is the word just before the shape; the other one is the background.
    before = words[words.index(shape) - 1]
    colour = before if before in COLOURS else colours[0]
    background = colours[1] if colours[0] == colour else colours[0]
    size = "small" if "small" in words else "large"
    return Scene(shape, colour, background, size, motion)
