"""Make a video from Python: `python examples/generate.py [PROMPT] [FILE]`.

Uses the embedded model, so it needs no download and no GPU.
"""

from __future__ import annotations

import sys

import easyanimate_core as ea
from easyanimate_core.events import Event, EventBus, Step


def report(event: Event) -> None:
    """Everything that a run has to say arrives as events; this one only wants the steps."""
    if isinstance(event, Step):
        print(f"step {event.index + 1} of {event.total}", file=sys.stderr)


def main(prompt: str = "a red circle moving right on a blue background", path: str = "circle.mp4") -> None:
    """Write a video of `prompt` to `path`."""
    pipe = ea.load("nano")
    request = ea.GenerationRequest(prompt=prompt, seed=43, scale=4)
    video = pipe(request, events=EventBus(report))
    print(video.save(path, overwrite=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
