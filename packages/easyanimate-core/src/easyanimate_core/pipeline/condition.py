"""What the user gave besides words, turned into conditions for the denoiser's inlets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["ConditionInlets"]


class ConditionInlets:
    """Runs the request's conditioners in order; without any, empty channel inlets are zeros."""

    name = "condition"
    needs: frozenset[str] = frozenset()
    gives = frozenset({"conditions"})
    uses: tuple[str, ...] = ("vae",)

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """Adds what every conditioner makes to `conditions`."""
        made = list(state.conditions)
        for choice in state.request.conditions:
            toolbox.cancel.check()
            made += choice.create().encode(state, toolbox)
        return state.with_(conditions=tuple(made))
