"""Draw what each generation is made of, into `docs/images/generation-*.svg`: `python tools/generation_pictures.py`.

A test compares the committed pictures with what this draws.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "docs" / "images"
TEXT, MODEL, MOTION, VAE = "#4a7fb5", "#777777", "#c2761b", "#2a8a63"
WIDTH, HEIGHT = 784, 330
DASHED = f'fill="none" stroke="{MODEL}" stroke-dasharray="4 4"'


@dataclass(frozen=True)
class Generation:
    """What the picture of one generation says.

    Attributes:
        name: of the generation.
        inputs: encoders on the left, with what they read.
        channels: what goes into the patch embedding.
        block: what a block does, in order; lines that begin with `~` are about time.
        repeat: how many blocks, and what joins them.
        head: what comes out.
        vae: how latents become frames.
    """

    name: str
    inputs: Sequence[str]
    channels: Sequence[str]
    block: Sequence[str]
    repeat: str
    head: str
    vae: Sequence[str]


GENERATIONS = (
    Generation(
        "v1",
        ("prompt → T5",),
        ("4 noisy latents",),
        (
            "self-attention in a frame",
            "~motion module: squares of 2×2 over time",
            "cross-attention to the text",
            "feed-forward",
        ),
        "× 28",
        "noise 4 + variance 4",
        ("KL autoencoder, 2-D", "1 latent → 1 frame"),
    ),
    Generation(
        "v2",
        ("prompt → T5",),
        ("4 noisy latents",),
        (
            "self-attention in a frame",
            "~motion module: each place over time",
            "cross-attention to the text",
            "feed-forward",
        ),
        "× 28, 13 long skips",
        "noise 4 + variance 4",
        ("Magvit, slices", "3 latents → 9 frames"),
    ),
    Generation(
        "v3",
        ("prompt → T5", "picture → CLIP, 8 tokens"),
        ("4 noisy latents", "4 mask, encoded", "4 masked video"),
        (
            "self-attention in a frame",
            "~even: each place over time",
            "~odd: and the whole video",
            "cross-attention to text and picture",
            "feed-forward",
        ),
        "× 28, 13 long skips",
        "noise 4 + variance 4",
        ("Magvit, overlapping slices", "2 latents → 8 frames"),
    ),
    Generation(
        "v4",
        ("prompt → BERT", "prompt → mT5", "picture → CLIP, 16 tokens"),
        ("4 noisy latents", "4 mask, encoded", "4 masked video"),
        (
            "~positions in time",
            "~self-attention in the whole clip, 2-D RoPE",
            "cross-attention to the text",
            "cross-attention to the picture",
            "feed-forward",
        ),
        "× 40, long skips",
        "noise 4 + variance 4",
        ("Magvit, causal cache", "2 latents → 8 frames"),
    ),
    Generation(
        "v5",
        ("prompt → BERT", "prompt → mT5"),
        ("16 noisy latents", "1 mask + 16 masked video", "or 16 control video"),
        (
            "modulation by the timestep, text and video",
            "~joint attention, text and video, 3-D RoPE",
            "feed-forward, own for text",
        ),
        "× 36 (7B) or 48 (12B)",
        "velocity 16",
        ("Magvit, causal cache", "1+n latents → 1+4n frames"),
    ),
    Generation(
        "v5.1",
        ("prompt → Qwen2-VL",),
        ("16 noisy latents", "1 mask + 16 masked video", "or 16 control + 16 reference", "or 6 camera + 16 reference"),
        (
            "modulation by the timestep, text and video",
            "~joint attention, text and video, 3-D RoPE",
            "feed-forward, own for text",
        ),
        "× 36 (7B) or 48 (12B)",
        "flow 16",
        ("Magvit, causal cache", "1+n latents → 1+4n frames"),
    ),
)


def high(lines: Sequence[str]) -> float:
    """Height of a box of so many lines."""
    return 20 * len(lines) + 12


def box(x: float, y: float, width: float, lines: Sequence[str], colour: str) -> str:
    """A rounded box with centred lines of text, 20 pixels each."""
    text = "".join(
        f'<text x="{x + width / 2}" y="{y + 20 * (i + 1)}" text-anchor="middle">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    paint = f'fill="{colour}" fill-opacity="0.13" stroke="{colour}"'
    return f'<rect x="{x}" y="{y}" width="{width}" height="{high(lines)}" rx="6" {paint}/>{text}'


def arrow(*points: tuple[float, float]) -> str:
    """A line through points, with a head at the last."""
    path = " L".join(f"{x},{y}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{MODEL}" marker-end="url(#head)"/>'


def draw(generation: Generation) -> str:
    """The picture: inputs at the left, the denoiser's block in the middle, latents to frames at the right."""
    middle, steps = HEIGHT / 2, []
    top = middle - 19 * len(generation.block)
    for i, line in enumerate(generation.block):
        steps.append(box(252, top + 38 * i, 284, [line.removeprefix("~")], MOTION if line.startswith("~") else MODEL))
    texts, latents = 24.0, HEIGHT - 30 - high(generation.channels)
    bottom, right = top + 38 * len(generation.block), [generation.head]
    first, second = texts + high(generation.inputs) / 2, latents + high(generation.channels) / 2
    parts = [
        f'<rect x="240" y="{top - 14}" width="308" height="{bottom - top + 40}" rx="10" {DASHED}/>',
        f'<text x="394" y="{bottom + 18}" text-anchor="middle">{escape(generation.repeat)}</text>',
        *steps,
        box(12, texts, 186, generation.inputs, TEXT),
        box(12, latents, 186, generation.channels, MODEL),
        box(578, middle - 70, 194, right, MODEL),
        box(578, middle + 4, 194, generation.vae, VAE),
        arrow((198, first), (219, first), (219, middle - 12), (236, middle - 12)),
        arrow((198, second), (219, second), (219, middle + 12), (236, middle + 12)),
        arrow((548, middle - 54), (574, middle - 54)),
        arrow((675, middle - 38), (675, middle)),
        arrow((675, middle + 56), (675, middle + 84)),
        f'<text x="675" y="{middle + 104}" text-anchor="middle">frames</text>',
    ]
    label = f"Architecture of {generation.name.upper()}"
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">\n'
        "<style>text{font:12px sans-serif;fill:#777777}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8" fill="none" stroke="{MODEL}"/></marker></defs>\n'
        f"{body}\n</svg>\n"
    )


def main(folder: Path) -> None:
    """Write a picture per generation into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for generation in GENERATIONS:
        (folder / f"generation-{generation.name}.svg").write_text(draw(generation), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
