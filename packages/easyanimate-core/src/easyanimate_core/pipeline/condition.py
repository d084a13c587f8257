"""What the user gave besides words, turned into conditions for the denoiser's inlets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyanimate_core.conditioning.inpaint import INLETS, inpaint_conditions, nothing_known, wants_unknown
from easyanimate_core.errors import IncompatibleConditions
from easyanimate_core.interfaces import GivesOrigin

if TYPE_CHECKING:
    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["ConditionInlets"]


class ConditionInlets:
    """Runs the request's conditioners in order; without any, empty channel inlets are zeros.

    A model for given frames that was never shown zeros there is told that nothing is known, when nothing is given.
    """

    name = "condition"
    needs: frozenset[str] = frozenset()
    # `origin` comes along when a conditioner has one; only `conditions` is always there afterwards.
    gives = frozenset({"conditions"})
    uses: tuple[str, ...] = ("vae", "image")

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """Adds what every conditioner makes to `conditions`, and fills `origin` when one of them gives it.

        Raises:
            IncompatibleConditions: two conditions say what sampling starts from.
        """
        made, origin = list(state.conditions), state.origin
        for choice in state.request.conditions:
            toolbox.cancel.check()
            conditioner = choice.create()
            made += conditioner.encode(state, toolbox)
            if not isinstance(conditioner, GivesOrigin) or (given := conditioner.origin(state, toolbox)) is None:
                continue
            if origin is not None:
                raise IncompatibleConditions(
                    f"'{choice.name}' says what sampling starts from, and so does another condition",
                    "Give one of them.",
                )
            origin = given
        if wants_unknown(toolbox.denoiser) and not {condition.inlet for condition in made} & set(INLETS):
            made += inpaint_conditions(nothing_known(state.geometry), state, toolbox, noise=0)
        return state.with_(conditions=tuple(made), origin=origin)
