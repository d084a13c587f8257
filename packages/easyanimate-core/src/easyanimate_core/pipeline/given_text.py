"""Embeddings that the caller brings instead of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from easyanimate_core.data import TextEmbedding
from easyanimate_core.errors import InvalidRequest

if TYPE_CHECKING:
    import torch

    from easyanimate_core.request import GenerationRequest

__all__ = ["GivenText", "given_text", "in_place_of_prompts"]

GivenText: TypeAlias = TextEmbedding | Sequence[TextEmbedding]
"""One embedding, or one per text encoder of the model."""


def in_place_of_prompts(text: GivenText, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What a request says where only embeddings were given: one placeholder for each.

    Raises:
        InvalidRequest: prompts were given as well, or the embeddings do not fit together.
    """
    if "prompt" in settings:
        raise InvalidRequest(f"'prompt' is '{settings['prompt']}', and 'text' is given too", "Give one of them.")
    return ("(given as an embedding)",) * _samples(_parts(text))


def given_text(
    text: GivenText | None,
    negative: GivenText | None,
    request: GenerationRequest,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """The fields `text` and `negative_text` of a state, for every video of a request; empty when none were given.

    Args:
        text: for one prompt, for every prompt, or for every video.
        negative: the same for the unguided half.
        request: complete.
        device: where to.
        dtype: of the states.

    Raises:
        InvalidRequest: one of them is missing or has another number of samples, or the video is a long one.
    """
    if text is None:
        if negative is not None:
            raise InvalidRequest("'negative_text' is given, and no 'text'", "Give both, or prompts.")
        return {}
    if request.segment_frames is not None:
        raise InvalidRequest("'text' is given for a long video", "Give prompts: each segment encodes its own.")
    given = {"text": _placed(_parts(text), request, device, dtype)}
    if request.guidance is not None and request.guidance > 1:
        if negative is None:
            raise InvalidRequest(
                f"'guidance' is '{request.guidance:g}', and 'negative_text' is missing", "Give it, or guidance=1."
            )
        given["negative_text"] = _placed(_parts(negative), request, device, dtype)
    return given


def _parts(text: GivenText) -> tuple[TextEmbedding, ...]:
    return (text,) if isinstance(text, TextEmbedding) else tuple(text)


def _samples(parts: tuple[TextEmbedding, ...]) -> int:
    """How many prompts were embedded: `B` of every `(B, L, D)`."""
    fitting = all(part.states.ndim == 3 and part.states.shape[:2] == part.mask.shape for part in parts)
    counts = {part.states.shape[0] for part in parts}
    if not fitting or len(counts) != 1:
        shapes = ", ".join(f"{tuple(part.states.shape)} with mask {tuple(part.mask.shape)}" for part in parts)
        raise InvalidRequest(
            f"the embeddings '{shapes}' do not fit together", "Give states (B, L, D) and masks (B, L) of one B."
        )
    return counts.pop()


def _placed(
    parts: tuple[TextEmbedding, ...], request: GenerationRequest, device: torch.device, dtype: torch.dtype
) -> tuple[TextEmbedding, ...]:
    count = _samples(parts)
    if count not in (1, len(request.prompts), request.batch):
        raise InvalidRequest(
            f"embeddings of '{count}' prompts are given for {len(request.prompts)}", "Give one for each prompt."
        )
    times = request.batch // count
    return tuple(
        TextEmbedding(
            part.states.to(device=device, dtype=dtype).repeat_interleave(times, dim=0),
            part.mask.to(device).repeat_interleave(times, dim=0),
        )
        for part in parts
    )
