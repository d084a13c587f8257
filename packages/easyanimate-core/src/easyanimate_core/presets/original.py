"""The original's model configs: `config/easyanimate_video_v3_slicevae_motion_module.yaml` and its siblings.

There, a model was a folder and one of six YAML files, whose settings stood above the folder's own `config.json`. Here a
preset says the same. Reading such a file serves those who have changed one. The original left out what its classes did
not know and said nothing; here each such setting is named in a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from easyanimate_core.errors import CheckpointNotFound, InvalidOptions
from easyanimate_core.events import SILENT, EventBus, Notice
from easyanimate_core.plugins import active
from easyanimate_core.schema import Model, parse
from easyanimate_core.slots import DENOISERS, PRESETS, VAES
from easyanimate_core.validation import did_you_mean

if TYPE_CHECKING:
    from easyanimate_core.presets.model import Preset

__all__ = ["MotionKwargs", "OriginalConfig", "TextEncoderKwargs", "TransformerKwargs", "VaeKwargs", "read_config"]

_MISSPELT: Final = "Correct the file, or leave it out: the preset has these settings already."
_EARLY: Final = frozenset(
    {
        "patch_3d", "fake_3d", "casual_3d", "casual_3d_upsampler_index", "time_patch_size", "enable_uvit", "qk_norm",
        "time_position_encoding_before_transformer", "motion_module_type", "motion_module_kwargs",
        "motion_module_kwargs_even", "motion_module_kwargs_odd", "upcast_attention",
    }
)  # fmt: skip
_LATE: Final = frozenset({"time_position_encoding_type", "add_ref_latent_in_control_model"})
_RUNS: Final = frozenset(
    {
        "mini_batch_encoder", "mini_batch_decoder", "slice_mag_vae", "slice_compression_vae", "cache_compression_vae",
        "cache_mag_vae",
    }
)  # fmt: skip
_LACKS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "Transformer3DModel": _LATE | {"time_position_encoding"},
        "HunyuanTransformer3DModel": _EARLY | {"add_ref_latent_in_control_model"},
        "EasyAnimateTransformer3DModel": _EARLY | {"basic_block_type", "time_position_encoding"},
        "AutoencoderKL": _RUNS,
    }
)
"""Settings of a section that one of its classes does not have; the original dropped them."""


class MotionKwargs(Model):
    """One kind of motion module (V1–V3)."""

    num_attention_heads: int | None = None
    num_transformer_block: int | None = None
    attention_block_types: tuple[Literal["Temporal_Self", "Global_Self"], ...] | None = None
    temporal_position_encoding: bool | None = None
    temporal_position_encoding_max_len: int | None = None
    temporal_attention_dim_div: int | None = None
    block_size: int | None = None
    remove_time_embedding_in_photo: bool | None = None


class TransformerKwargs(Model):
    """`transformer_additional_kwargs`: the denoiser's class, and settings above its `config.json`."""

    transformer_type: Literal["Transformer3DModel", "HunyuanTransformer3DModel", "EasyAnimateTransformer3DModel"] = (
        "Transformer3DModel"
    )
    patch_3d: bool | None = None
    fake_3d: bool | None = None
    casual_3d: bool | None = None
    casual_3d_upsampler_index: tuple[int, ...] | None = None
    time_patch_size: int | None = None
    basic_block_type: str | None = None
    time_position_encoding_before_transformer: bool | None = None
    motion_module_type: Literal["Vanilla", "VanillaGrid"] | None = None
    motion_module_kwargs: MotionKwargs | None = None
    motion_module_kwargs_even: MotionKwargs | None = None
    motion_module_kwargs_odd: MotionKwargs | None = None
    enable_uvit: bool | None = None
    after_norm: bool | None = None
    qk_norm: bool | None = None
    time_position_encoding: bool | None = None
    time_position_encoding_type: str | None = None
    resize_inpaint_mask_directly: bool | None = None
    enable_text_attention_mask: bool | None = None
    enable_clip_in_inpaint: bool | None = None
    enable_zero_in_inpaint: bool | None = None
    position_of_clip_embedding: Literal["full", "head"] | None = None
    add_noise_in_inpaint_model: bool | None = None
    add_ref_latent_in_control_model: bool | None = None
    upcast_attention: bool | None = None


class VaeKwargs(Model):
    """`vae_kwargs`: the VAE's class, and settings above its `config.json` (which the original read and ignored)."""

    vae_type: Literal["AutoencoderKL", "AutoencoderKLMagvit", "AutoencoderKLCogVideoX"] = "AutoencoderKL"
    mini_batch_encoder: int | None = None
    mini_batch_decoder: int | None = None
    slice_mag_vae: bool | None = None
    slice_compression_vae: bool | None = None
    cache_compression_vae: bool | None = None
    cache_mag_vae: bool | None = None


class TextEncoderKwargs(Model):
    """`text_encoder_kwargs`: how many text encoders, and of which kind."""

    enable_multi_text_encoder: bool = False
    """BERT and mT5 instead of one encoder."""

    replace_t5_to_llm: bool = False
    """A language model instead of T5."""


class OriginalConfig(Model):
    """One of the original's YAML files: what of it has a meaning here."""

    transformer_additional_kwargs: TransformerKwargs = TransformerKwargs()
    vae_kwargs: VaeKwargs = VaeKwargs()
    text_encoder_kwargs: TextEncoderKwargs = TextEncoderKwargs()

    @property
    def generation(self) -> str:
        """The generation that it is of: `"v1"` … `"v5.1"`. The original knew by the file's name."""
        transformer, text = self.transformer_additional_kwargs, self.text_encoder_kwargs
        if transformer.transformer_type == "HunyuanTransformer3DModel":
            return "v4"
        if transformer.transformer_type == "EasyAnimateTransformer3DModel":
            return "v5.1" if text.replace_t5_to_llm else "v5"
        if transformer.basic_block_type == "global_motionmodule":
            return "v3"
        return "v1" if self.vae_kwargs.vae_type == "AutoencoderKL" else "v2"

    def applied(self, preset: Preset) -> Preset:
        """The preset with this file's settings above its own.

        Raises:
            InvalidOptions: the file is of another generation.
        """
        if preset.generation != self.generation:
            same = [name for name in active().registries[PRESETS].names if _generation(name) == self.generation]
            raise InvalidOptions(
                f"the config is of generation '{self.generation}', the model '{preset.name}' of '{preset.generation}'",
                f"Models of this generation: {', '.join(same)}.",
            )
        denoiser, autoencoder = self.transformer_additional_kwargs.transformer_type, self.vae_kwargs.vae_type
        transformer, vae = _given(self.transformer_additional_kwargs, denoiser), _given(self.vae_kwargs, autoencoder)
        kinds = active().registries
        components = preset.components.model_copy(
            update={"denoiser": kinds[DENOISERS].get(denoiser).name, "vae": kinds[VAES].get(autoencoder).name}
        )
        text = dict(preset.settings.text_encoder)
        if "masked" in text and "enable_text_attention_mask" in transformer:
            text["masked"] = transformer["enable_text_attention_mask"]
        settings = preset.settings.model_copy(
            update={
                "text_encoder": text,
                "denoiser": {**preset.settings.denoiser, **transformer},
                "vae": {**preset.settings.vae, **vae},
            }
        )
        return preset.model_copy(update={"components": components, "settings": settings})


def read_config(path: str | Path, events: EventBus = SILENT) -> OriginalConfig:
    """Read one of the original's model configs.

    Args:
        path: a YAML file.
        events: hears, in a warning each, which settings are left out because such files do not have them, or because
            the model's class does not; a near miss is named.

    Raises:
        CheckpointNotFound: there is no such file.
        InvalidOptions: it is not YAML, has none of such a file's sections, or a setting's value makes no sense.
    """
    import yaml

    path = Path(path).expanduser()
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointNotFound(
            f"there is no config '{path}'", "Give a YAML file of the original's config/."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidOptions(f"'{path}' is not YAML: {error}", _MISSPELT) from error
    if not isinstance(data, Mapping) or not data.keys() & OriginalConfig.model_fields.keys():
        sections = ", ".join(OriginalConfig.model_fields)
        raise InvalidOptions(
            f"'{path}' holds no model's settings", f"Give a YAML file of the original's config/; it has: {sections}."
        )
    told: list[str] = []
    config = parse(OriginalConfig, _understood(OriginalConfig, data, "", told), of=f"config '{path}'")
    transformer, vae = config.transformer_additional_kwargs, config.vae_kwargs
    told += _not_of_class("transformer_additional_kwargs", transformer, transformer.transformer_type)
    told += _not_of_class("vae_kwargs", vae, vae.vae_type)
    for sentence in told:
        events.emit(Notice(f"config '{path}': {sentence}", "warning"))
    return config


def _understood(kind: type[Model], data: Any, place: str, told: list[str]) -> Any:
    """A section without the settings that such files do not have, at any depth; appends a sentence for each of them.

    Args:
        kind: of the section.
        data: of the file. What is no section is left for validation to refuse.
        place: of the section in the file, for messages.
        told: where sentences go.
    """
    if not isinstance(data, Mapping):
        return data
    kept: dict[Any, Any] = {}
    for key, value in data.items():
        if key not in kind.model_fields:
            near = did_you_mean(str(key), list(kind.model_fields))
            told.append(f"'{place}{key}' is no setting of such files and is left out. {near}".rstrip())
        else:
            inner = _section(kind.model_fields[key].annotation)
            kept[key] = value if inner is None else _understood(inner, value, f"{place}{key}.", told)
    return kept


def _not_of_class(place: str, section: Model, name: str) -> list[str]:
    """A sentence for each setting that a section says and its class does not have."""
    lacking = sorted(section.model_fields_set & _LACKS.get(name, frozenset()))
    return [f"'{place}.{key}' is no setting of '{name}' and is left out." for key in lacking]


def _section(annotation: Any) -> type[Model] | None:
    """The model that a field holds, perhaps; `None` for a plain value."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Model)), None)


def _given(section: Model, name: str) -> dict[str, Any]:
    """What the file says in a section and the section's class has; the class's name aside."""
    besides = {"transformer_type", "vae_type", *_LACKS.get(name, ())}
    return section.model_dump(mode="json", exclude_unset=True, exclude=besides)


def _generation(name: str) -> str:
    from easyanimate_core.presets.catalog import find_preset

    return find_preset(name).generation
