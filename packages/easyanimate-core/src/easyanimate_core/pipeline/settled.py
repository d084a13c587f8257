"""What a completed request says, without the `None` of a request that still leaves choices open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyanimate_core.errors import InvalidRequest

if TYPE_CHECKING:
    from easyanimate_core.request import GenerationRequest

__all__ = ["Settled"]


@dataclass(frozen=True, slots=True)
class Settled:
    """The numbers that stages work with.

    Attributes:
        steps: denoising steps.
        guidance: guidance scale; 1 is off.
        fps: frames per second of the result.
        negative_prompt: for the unguided half.
        seeds: one per sample.
    """

    steps: int
    guidance: float
    fps: float
    negative_prompt: str
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, request: GenerationRequest) -> Settled:
        """Read a request that a preset has completed.

        Raises:
            InvalidRequest: it still leaves something open.
        """
        steps, guidance, fps, negative = request.steps, request.guidance, request.fps, request.negative_prompt
        if steps is None or guidance is None or fps is None or negative is None or request.seed is None:
            names = ("steps", "guidance", "fps", "negative_prompt", "seed")
            first = next(name for name in names if getattr(request, name) is None)
            raise InvalidRequest(f"the request leaves '{first}' open", "Complete it: preset.complete(request).")
        return cls(steps, guidance, fps, negative, request.sample_seeds())

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance runs at all."""
        return self.guidance > 1.0
