"""Which layout a component is in: every registered format gives a score, the best one is asked for its map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easyanimate_core.errors import AmbiguousCheckpoint, UnknownFormat
from easyanimate_core.interfaces import Format, TranslatesConfig
from easyanimate_core.plugins import active
from easyanimate_core.slots import FORMATS

if TYPE_CHECKING:
    from easyanimate_core.checkpoints.header import Header
    from easyanimate_core.checkpoints.keymap import KeyMap

__all__ = ["Recognised", "recognise"]


@dataclass(frozen=True, slots=True)
class Recognised:
    """A component whose layout is known.

    Attributes:
        name: registered name of the format.
        format: the format.
        header: what it was recognised by.
    """

    name: str
    format: Format
    header: Header

    def keymap(self) -> KeyMap:
        """From stored names to our module's."""
        return self.format.keymap(self.header)

    def config(self) -> dict[str, Any]:
        """The component's settings as our modules take them; empty when there is no `config.json`."""
        if isinstance(self.format, TranslatesConfig):
            return self.format.config(self.header)
        return dict(self.header.config or {})


def recognise(header: Header) -> Recognised:
    """The format with the best score.

    Args:
        header: names and shapes of the component's tensors; give its config, if there is one, along with them.

    Raises:
        UnknownFormat: no format claims it.
        AmbiguousCheckpoint: several claim it equally.
    """
    registry = active().registries[FORMATS]
    scored = []
    for entry in registry:
        layout = registry.create(entry.qualified)
        score = layout.match(header)
        if score is not None:
            scored.append((score, entry.name, layout))
    if not scored:
        first = ", ".join(f"'{name}'" for name in list(header.tensors)[:3]) or "nothing"
        raise UnknownFormat(
            f"'{header.path}' is in no known layout (its tensors begin with {first})",
            f"Known: {', '.join(registry.names)}. Is it a denoiser or VAE of EasyAnimate? LoRA files go to --lora.",
        )
    best = max(score for score, _, _ in scored)
    winners = [(name, layout) for score, name, layout in scored if score == best]
    if len(winners) > 1:
        names = "' and '".join(name for name, _ in winners)
        raise AmbiguousCheckpoint(
            f"'{header.path}' looks as much like '{names}'",
            "Does the folder mix files of two downloads? Keep those of one.",
        )
    return Recognised(winners[0][0], winners[0][1], header)
