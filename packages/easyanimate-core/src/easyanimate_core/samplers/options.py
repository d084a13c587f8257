"""Options of the samplers. Field names are those of `scheduler/scheduler_config.json` in a released checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from easyanimate_core.schema import Model

__all__ = [
    "DdimOptions",
    "DiffusionOptions",
    "DpmSolverOptions",
    "EulerAncestralOptions",
    "EulerOptions",
    "FlowOptions",
    "LcmOptions",
    "PndmOptions",
]


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


class DiffusionOptions(Model):
    """What samplers of discrete diffusion share: the schedule of noise that the denoiser was trained with."""

    num_train_timesteps: int = Field(default=1000, ge=2)
    """Levels of noise in training; timesteps are 0 … `num_train_timesteps` − 1."""

    beta_start: float = Field(default=0.0001, gt=0.0, lt=1.0)
    """Variance of the noise that the first level adds."""

    beta_end: float = Field(default=0.02, gt=0.0, lt=1.0)
    """Variance of the noise that the last level adds."""

    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    """How variances go from first to last: evenly, evenly in their square roots, or by a cosine."""

    trained_betas: None = None
    """Recorded by released checkpoints, always empty; variances of one's own are not supported."""

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    """What the denoiser predicts: the noise, or the velocity of Salimans and Ho (2022)."""

    timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace"
    """Which levels the steps visit: from first to last evenly, multiples of a stride from the first, or from the
    last. Names as in Lin et al. (2023), table 2."""

    steps_offset: int = Field(default=0, ge=0)
    """Added to the timesteps of `leading` spacing."""


class _Rescaled(DiffusionOptions):
    rescale_betas_zero_snr: bool = False
    """Raise the noise of the last level until nothing of the data is left: Lin et al. (2023), algorithm 1."""


class _Recorded(_Rescaled):
    thresholding: Literal[False] = False
    """Recorded by released checkpoints; latents are never thresholded."""

    dynamic_thresholding_ratio: float = 0.995
    """Recorded by released checkpoints; unused."""

    sample_max_value: float = 1.0
    """Recorded by released checkpoints; unused."""

    variance_type: str | None = None
    """Recorded by released checkpoints; unused, because a learned variance is dropped before a step."""


class _EvenSigmas(DiffusionOptions):
    use_exponential_sigmas: Literal[False] = False
    """Recorded by configs that diffusers wrote lately; spacing evenly in log σ is not supported."""

    use_beta_sigmas: Literal[False] = False
    """Recorded by configs that diffusers wrote lately; spacing by a beta distribution is not supported."""


class EulerOptions(_Rescaled, _EvenSigmas):
    """Euler steps of the probability flow: Karras et al. (2022), algorithm 2 without churn."""

    use_karras_sigmas: bool = False
    """Space σ as in Karras et al. (2022), equation 5, instead of as the levels are."""

    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    """Where the last step ends: at clean data, or at the smallest σ of training."""

    interpolation_type: Literal["linear", "log_linear"] = "linear"
    """How σ is found between two levels."""

    timestep_type: Literal["discrete"] = "discrete"
    """Recorded by released checkpoints."""

    sigma_min: None = None
    """Recorded by configs that diffusers wrote lately, always empty; the smallest σ is that of training."""

    sigma_max: None = None
    """Recorded by configs that diffusers wrote lately, always empty; the largest σ is that of training."""


class EulerAncestralOptions(_Rescaled):
    """Euler steps that go too far and draw new noise back: stochastic."""


class DpmSolverOptions(_Recorded, _EvenSigmas):
    """DPM-Solver++: Lu et al. (2022). Remembers earlier predictions, so few steps go far."""

    solver_order: Literal[1, 2, 3] = 2
    """Predictions that a step uses."""

    algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"] = "dpmsolver++"
    """The `sde` kinds draw new noise at every step."""

    solver_type: Literal["midpoint", "heun"] = "midpoint"
    """Formula of a second-order step."""

    lower_order_final: bool = True
    """Use lower orders in the last steps when there are fewer than 15."""

    euler_at_final: bool = False
    """Use order 1 in the last step."""

    use_karras_sigmas: bool = False
    """Space σ as in Karras et al. (2022), equation 5."""

    use_lu_lambdas: bool = False
    """Space steps evenly in log signal-to-noise ratio, as in Lu et al. (2022)."""

    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    """Where the last step ends: at clean data, or at the smallest σ of training."""

    use_flow_sigmas: Literal[False] = False
    """Recorded by configs that diffusers wrote lately; for flow matching there is the sampler `flow`."""

    flow_shift: float = 1.0
    """Recorded by configs that diffusers wrote lately; unused without `use_flow_sigmas`."""

    lambda_min_clipped: Annotated[float, Field(allow_inf_nan=True)] | None = None
    """Leave out levels whose log signal-to-noise ratio is lower; none when empty."""

    @field_validator("lambda_min_clipped")
    @classmethod
    def _infinity_is_none(cls, value: float | None) -> float | None:
        """Released configs write −∞, which JSON does not know."""
        return None if value == float("-inf") else value


class PndmOptions(DiffusionOptions):
    """Pseudo numerical methods: Liu et al. (2022). Remembers up to four predictions."""

    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    """Which levels the steps visit; see `DiffusionOptions`."""

    skip_prk_steps: bool = False
    """Begin with a repeated first step instead of Runge-Kutta steps, which ask the denoiser nine times more."""

    set_alpha_to_one: bool = False
    """Let the last step end at clean data instead of at the first level of training."""


class DdimOptions(_Recorded):
    """Denoising diffusion implicit models: Song et al. (2020)."""

    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    """Which levels the steps visit; see `DiffusionOptions`."""

    clip_sample: bool = True
    """Keep the predicted clean latents within ±`clip_sample_range`. Checkpoints of latent models say no."""

    clip_sample_range: float = Field(default=1.0, gt=0.0)
    """See `clip_sample`."""

    set_alpha_to_one: bool = True
    """Let the last step end at clean data instead of at the first level of training."""

    eta: float = Field(default=0.0, ge=0.0, le=1.0)
    """Noise drawn at every step: 0 is deterministic, 1 is as much as in DDPM."""


class LcmOptions(_Recorded):
    """Latent consistency models: Luo et al. (2023). A few steps, with a model or a LoRA that was distilled for it."""

    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    """Recorded by configs; unused: steps are taken from those of the distillation."""

    original_inference_steps: int = Field(default=50, ge=1)
    """Steps that the model was distilled from; a run takes some of them."""

    timestep_scaling: float = Field(default=10.0, gt=0.0)
    """How fast a step trusts the prediction more than its input; as in the distillation."""

    clip_sample: bool = False
    """Keep the predicted clean latents within ±`clip_sample_range`."""

    clip_sample_range: float = Field(default=1.0, gt=0.0)
    """See `clip_sample`."""

    set_alpha_to_one: bool = True
    """Recorded by configs; unused: the last step ends at the prediction."""
