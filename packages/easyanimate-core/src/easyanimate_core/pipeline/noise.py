"""The noise that a run starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_core.conditioning.draws import draw_noise
from easyanimate_core.pipeline.settled import Settled

if TYPE_CHECKING:
    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["DrawNoise"]


class DrawNoise:
    """Draws unit noise on the CPU, so that a seed means the same on every device.

    Every sample of a batch has its own seed and generator: it equals the same sample made alone.
    """

    name = "noise"
    needs: frozenset[str] = frozenset()
    gives = frozenset({"latents"})
    uses: tuple[str, ...] = ()

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """Fills `latents`, `(B, C, f, h, w)` in the loop's dtype."""
        Settled.of(state.request)  # says what is open, if anything is
        noise, _ = draw_noise(state, toolbox)
        return state.with_(latents=noise.to(toolbox.device))
