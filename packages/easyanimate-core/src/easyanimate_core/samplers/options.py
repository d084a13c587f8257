"""Options of the samplers. Field names are those of `scheduler/scheduler_config.json` in a released checkpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from easyanimate_core.schema import Model

__all__ = ["FlowOptions"]


class FlowOptions(Model):
    """Flow matching with Euler steps."""

    num_train_timesteps: int = Field(default=1000, ge=1)
    """Scale of the timesteps that the denoiser sees: 0 … `num_train_timesteps`."""

    shift: float = Field(default=1.0, gt=0.0, le=100.0)
    """Moves steps towards noise: σ → shift·σ / (1 + (shift − 1)·σ). 1 spaces them evenly. Ignored when
    `use_dynamic_shifting` is on."""

    use_dynamic_shifting: bool = False
    """Space steps by σ → eᵘ / (eᵘ + 1/σ − 1). Released models were sampled with μ = 1 at every size."""

    time_shift_type: Literal["exponential", "linear"] = "exponential"
    """Formula of dynamic shifting: with e to the power of μ, or with μ itself."""

    base_shift: float | None = 0.5
    """Recorded by released checkpoints; unused, because μ is 1 at every size."""

    max_shift: float | None = 1.15
    """Recorded by released checkpoints; unused, because μ is 1 at every size."""

    base_image_seq_len: int = 256
    """Recorded by released checkpoints; unused, because μ is 1 at every size."""

    max_image_seq_len: int = 4096
    """Recorded by released checkpoints; unused, because μ is 1 at every size."""

    shift_terminal: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Stretch the schedule so that its last σ is this value; off when empty."""

    invert_sigmas: Literal[False] = False
    """Recorded by released checkpoints; data always lies at σ = 0 here."""

    use_karras_sigmas: bool = False
    """Space σ as in Karras et al. (2022) instead of evenly."""

    use_exponential_sigmas: bool = False
    """Space σ evenly in its logarithm."""

    use_beta_sigmas: Literal[False] = False
    """Recorded by released checkpoints; spacing by a beta distribution is not supported."""

    stochastic_sampling: bool = False
    """Draw new noise at every step instead of following the line."""
