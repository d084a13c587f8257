"""The released layout: parameter names as our modules have them, so nothing is renamed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from easyanimate_core.checkpoints.keymap import KeyMap

if TYPE_CHECKING:
    from easyanimate_core.checkpoints.header import Header

__all__ = ["EasyAnimateFormat", "MotionModuleFormat", "TrainingFormat", "holds_motion", "is_vae"]

# The text branch of attention, which the diffusers port names differently.
_DENOISER: Final = re.compile(r"(transformer_)?blocks\.\d+\.(attn1\.to_q|norm1\.linear)\.weight$")
_TEXT_BRANCH: Final = re.compile(r"transformer_blocks\.\d+\.attn2\.")
_PORTED_BRANCH: Final = re.compile(r"transformer_blocks\.\d+\.attn1\.(add_|to_add_|norm_added_)")
_MOTION: Final = re.compile(r"transformer_blocks\.\d+\.attn_temporal\.")
_VAE: Final = re.compile(r"(encoder\.down_blocks|decoder\.up_blocks)\.\d+\.convs\.\d+\.")
# VAEs that diffusers has classes for, by whose names they are released: V1's, and CogVideoX's with its causal layers.
_BORROWED_VAE: Final = re.compile(
    r"(encoder\.down_blocks|decoder\.up_blocks)\.\d+\.resnets\.\d+\.conv1\.(conv\.)?weight$"
)
_TRAINED: Final = re.compile(r"(?P<role>denoiser|vae|text(_\d+)?)\.(?P<name>.+)$")


def is_vae(header: Header) -> bool:
    """Whether the tensors are those of a Magvit VAE, in either layout: they have the same names in both."""
    return any(_VAE.match(name) for name in header.tensors)


def holds_motion(header: Header) -> bool:
    """Whether there are tensors of a motion module among a denoiser's."""
    return any(_MOTION.match(name) for name in header.tensors)


class EasyAnimateFormat:
    """Components of released EasyAnimate checkpoints: a whole folder's, or a bare file."""

    def match(self, header: Header) -> float | None:
        """1 for a released denoiser or VAE; of a VAE with a config, the config decides."""
        if is_vae(header):
            config = header.config
            return 1.0 if config is None or not config or any(key.endswith("_vae") for key in config) else None
        names = header.tensors
        if any(_BORROWED_VAE.match(name) for name in names):
            return 1.0
        if not any(_DENOISER.match(name) for name in names):
            return None
        own, ported = (any(branch.match(name) for name in names) for branch in (_TEXT_BRANCH, _PORTED_BRANCH))
        # A model without text branches has the same names in both layouts: ours, then.
        return 1.0 if own or not ported else None

    def keymap(self, header: Header) -> KeyMap:
        """Nothing changes: our modules keep the released names."""
        return KeyMap()


class MotionModuleFormat:
    """A motion module alone, as released with V1: what an image model of the PixArt family lacks to make videos.

    By itself it fills no denoiser. Beside an image model's files it completes them.
    """

    def match(self, header: Header) -> float | None:
        """1 when there is nothing but motion modules."""
        return 1.0 if header.tensors and all(_MOTION.match(name) for name in header.tensors) else None

    def keymap(self, header: Header) -> KeyMap:
        """Nothing changes."""
        return KeyMap()


class TrainingFormat:
    """The `weights.safetensors` of a run that is not finished: parameters by `role.name`.

    (The `final/` folder of a finished run has the released layout.)
    """

    def match(self, header: Header) -> float | None:
        """1 when every name begins with a role, and the wanted role is among them."""
        roles = {found["role"] if (found := _TRAINED.match(name)) else "" for name in header.tensors}
        if not roles or "" in roles:
            return None
        return 1.0 if not header.role or header.role in roles else None

    def keymap(self, header: Header) -> KeyMap:
        """The role's names without the role; the tensors of other roles are not read."""
        found = [_TRAINED.match(name) for name in header.tensors]
        role = header.role or next(match["role"] for match in found if match)
        return KeyMap.of(
            lambda name: name.removeprefix(f"{role}.") if name.startswith(f"{role}.") else None, header.tensors
        )
