"""What a config means: which settings releases share, and which motion module a block has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from easyanimate_core.denoisers.pixart.motion import MotionModule, MotionOptions
from easyanimate_core.errors import CheckpointMismatch

__all__ = ["motion_of", "refuse_unreleased"]

# What the released code could build and no release has.
_RELEASED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "patch_3d": False,
        "fake_3d": False,
        "casual_3d": False,
        "casual_3d_upsampler_index": None,
        "time_patch_size": None,
        "time_position_encoding_before_transformer": False,
        "norm_type": "ada_norm_single",
        "attention_type": "default",
        "num_vector_embeds": None,
        "use_linear_projection": False,
        "double_self_attention": False,
        "only_cross_attention": False,
        "qk_norm": False,
        "after_norm": False,
        "add_noise_in_inpaint_model": False,
    }
)


def refuse_unreleased(config: Any) -> None:
    """Refuse a model's config that asks for what no release has.

    Raises:
        CheckpointMismatch: it does.
    """
    for name, value in _RELEASED.items():
        if (given := config[name]) != value:
            raise CheckpointMismatch(
                f"the config sets '{name}' to '{given}', which no released checkpoint does", f"Set it to '{value}'."
            )


def motion_of(config: Any, width: int, index: int) -> MotionModule | None:
    """The motion module of a block of this width and index; `None` in a model of single pictures.

    Raises:
        CheckpointMismatch: the config names a kind of block or module that no release has.
    """
    sources = {
        "basic": None,
        "motionmodule": "motion_module_kwargs",
        "global_motionmodule": "motion_module_kwargs_odd" if index % 2 else "motion_module_kwargs_even",
    }
    if config.basic_block_type not in sources:
        raise CheckpointMismatch(
            f"the config's 'basic_block_type' is '{config.basic_block_type}', which no release has",
            f"Known: {', '.join(sources)}.",
        )
    source = sources[config.basic_block_type]
    if source is None:
        return None
    return MotionModule(width, config.motion_module_type, MotionOptions.of(config[source]))
