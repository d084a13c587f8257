"""Prompts and negative prompt to embeddings, once per run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from easyanimate_core.data import State, TextEmbedding
from easyanimate_core.pipeline.settled import Settled

if TYPE_CHECKING:
    from easyanimate_core.interfaces import TextEncoder, Toolbox

__all__ = ["EncodeText"]


class EncodeText:
    """Encodes every prompt and, when guidance is on, the negative prompt, with each text encoder of the model."""

    name = "encode_text"
    needs: frozenset[str] = frozenset()
    # `negative_text` comes along when the request is guided; only `text` is always there afterwards.
    gives = frozenset({"text"})
    uses: tuple[str, ...] = ("text",)

    def __call__(self, state: State, toolbox: Toolbox) -> State:
        """Fills `text`, one `(B, L, D)` per encoder, and `negative_text` when guided."""
        request, settled = state.request, Settled.of(state.request)
        repeats = request.videos_per_prompt
        text = tuple(_embedded(e, request.prompts, repeats, toolbox) for e in toolbox.text_encoders)
        if not settled.guided:
            return state.with_(text=text, negative_text=())
        negative = [settled.negative_prompt]
        unguided = tuple(_embedded(e, negative, state.geometry.batch, toolbox) for e in toolbox.text_encoders)
        return state.with_(text=text, negative_text=unguided)


def _embedded(encoder: TextEncoder, prompts: Sequence[str], repeats: int, toolbox: Toolbox) -> TextEmbedding:
    """Each prompt encoded once, then repeated as neighbours; in the loop's dtype and on its device."""
    toolbox.cancel.check()
    once = encoder.encode(prompts)
    states = once.states.to(device=toolbox.device, dtype=toolbox.dtype)
    mask = once.mask.to(toolbox.device)
    return TextEmbedding(states.repeat_interleave(repeats, dim=0), mask.repeat_interleave(repeats, dim=0))
