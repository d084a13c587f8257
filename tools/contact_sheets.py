"""Draws what the nano models make of pictures, outlines and cameras: `docs/images/nano-*.png`.

Each row is one case that training never showed: what was given on the left, every fourth frame of the result on the
right, and the prompt below.

    python tools/contact_sheets.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import easyanimate_core as ea
from easyanimate_core.request import GenerationRequest
from easyanimate_train.data.order import generator
from easyanimate_train.nano.trials import TRIALS
from easyanimate_train.shapes import all_scenes, is_held_out

SHEETS = {
    "v5.1-nano-inp": ("picture", "ends", "conflict"),
    "v5.1-nano-control": ("outline", "outline", "outline"),
    "v5.1-nano-camera": ("camera", "camera-picture", "camera-picture"),
}
ROWS, SCALE, GAP, LINE = 6, 2, 6, 18


def pictures(conditions: tuple[dict[str, object], ...]) -> list[torch.Tensor]:
    """What the conditions show `(3, H, W)`: given pictures, or the first, middle and last frame of a given video."""
    found = []
    for condition in conditions:
        named = (condition.get(name) for name in ("start", "end", "image"))
        found += [given for given in named if isinstance(given, torch.Tensor)]
        if isinstance(video := condition.get("video"), torch.Tensor):
            found += [video[:, index] for index in (0, video.shape[1] // 2, -1)]
    return found


def strip(frames: list[torch.Tensor]) -> Image.Image:
    """Frames side by side."""
    joined = torch.cat([torch.nn.functional.pad(f.clamp(0, 1), (0, GAP // SCALE), value=1.0) for f in frames], dim=2)
    pixels = (joined * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    return picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)


def sheet(model: str, trials: tuple[str, ...]) -> Image.Image:
    """All rows of one model."""
    pipeline = ea.load(model)
    pool = [s for s in all_scenes() if is_held_out(s) and (s.motion == "still" or "camera" not in model)]
    order = torch.randperm(len(pool), generator=generator("sheet", model)).tolist()
    rows = []
    for number in range(ROWS):
        trial = trials[number % len(trials)]
        # The default font has no Chinese: the first English wording.
        drawn = (TRIALS[trial](pool[order[number]], generator("sheet", model, number, again)) for again in range(99))
        case = next(case for case in drawn if case.prompt.isascii())
        video = pipeline(GenerationRequest(prompt=case.prompt, conditions=case.conditions, seed=number, model=model))
        rows.append(
            (f"{case.note or trial}: {case.prompt}", pictures(case.conditions), list(video.frames[0][:, ::4].unbind(1)))
        )
    given = max(len(row[1]) for row in rows)
    tile = 64 * SCALE + GAP
    page = Image.new("RGB", (tile * (given + 5) + 4 * GAP, ROWS * (64 * SCALE + LINE + GAP)), "white")
    draw = ImageDraw.Draw(page)
    for number, (said, left, right) in enumerate(rows):
        top = number * (64 * SCALE + LINE + GAP)
        if left:
            page.paste(strip(left), (0, top))
        page.paste(strip(right), (tile * given + 4 * GAP, top))
        draw.text((2, top + 64 * SCALE + 2), said, fill="black")
    return page


def main() -> None:
    """Write every sheet, or those of the models that are named."""
    folder = Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(exist_ok=True)
    for model in sys.argv[1:] or SHEETS:
        path = folder / f"{model.removeprefix('v5.1-')}.png"
        sheet(model, SHEETS[model]).save(path, optimize=True)
        print(path)


if __name__ == "__main__":
    main()
