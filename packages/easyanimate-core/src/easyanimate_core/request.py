"""`GenerationRequest`: what somebody wants, in one document for Python, the command line, HTTP and the UI."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.interfaces import AttentionBackend, Conditioner, OffloadStrategy, Sampler, StepCache, Storage
from easyanimate_core.placing import memory_mode
from easyanimate_core.schema import Among, Choice, Hint, Model, parse
from easyanimate_core.sizes import Bytes
from easyanimate_core.slots import ATTENTION, CONDITIONERS, OFFLOAD, SAMPLERS, STEP_CACHES, STORAGE

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["GenerationRequest", "Lora", "Size"]

_SEEDS: Final = 2**63
_WRITTEN: Final = re.compile(r"\s*(\d+)\s*[x×*]\s*(\d+)\s*", re.IGNORECASE)


class Size(Model):
    """Size of a frame, always height before width.

    Written `"384x672"`, `(384, 672)` or `{"height": 384, "width": 672}`: 384 pixels high, 672 wide.
    """

    height: Annotated[int, Field(ge=16, le=4096), Hint(unit="px")]
    """Height in pixels, 16…4096."""

    width: Annotated[int, Field(ge=16, le=4096), Hint(unit="px")]
    """Width in pixels, 16…4096."""

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            if (match := _WRITTEN.fullmatch(value)) is None:
                raise ValueError("must be HEIGHTxWIDTH in pixels, such as 384x672")
            return {"height": int(match[1]), "width": int(match[2])}
        if isinstance(value, Sequence):
            if len(value) != 2:
                raise ValueError("must be two numbers, height and width in pixels")
            return {"height": value[0], "width": value[1]}
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = dict(handler.resolve_ref_schema(handler(schema)))
        text = {"type": "string", "pattern": r"^\d+x\d+$", "description": "HEIGHTxWIDTH in pixels"}
        pair = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
        return {"title": "Size", "description": described.pop("description"), "anyOf": [described, text, pair]}


def _path_as_text(value: object) -> object:
    return fspath(value) if isinstance(value, PathLike) else value


def _lora_in_full(value: object) -> object:
    value = _path_as_text(value)
    if isinstance(value, str):
        path, separator, weight = value.rpartition("=")
        try:
            return {"path": path, "weight": float(weight)} if separator else {"path": value}
        except ValueError:
            return {"path": value}  # an equals sign in the file's name
    if isinstance(value, Sequence) and len(value) == 2:
        return {"path": value[0], "weight": value[1]}
    return value


class Lora(Model):
    """A LoRA file and how strongly it acts. Written `"style.safetensors"`, `"style.safetensors=0.6"` or in full."""

    path: Annotated[str, BeforeValidator(_path_as_text), Hint(media="file")]
    """File in the kohya, PEFT or diffusers layout, a folder that PEFT saved, or `owner/name:FILE` of a repository that
    was downloaded."""

    weight: Annotated[float, Field(ge=-10, le=10)] = 1.0
    """What it adds is multiplied by this, −10…10; 1 is as trained, 0 is off. Default: 1."""

    @classmethod
    def of(cls, value: object) -> Lora:
        """Read a LoRA from any of its spellings, `(path, weight)` among them.

        Raises:
            InvalidRequest: it is none of them.
        """
        return parse(cls, _lora_in_full(value), InvalidRequest, of="LoRA")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return _lora_in_full(value)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = dict(handler.resolve_ref_schema(handler(schema)))
        text = {"type": "string", "description": "PATH or PATH=WEIGHT"}
        return {"title": "Lora", "description": described.pop("description"), "anyOf": [described, text]}


def _said(prompt: object) -> object:
    prompts = prompt if isinstance(prompt, list | tuple) else (prompt,)
    if not all(isinstance(text, str) for text in prompts):
        raise ValueError("must be text, or a list of texts")
    if not prompts or not all(text.strip() for text in prompts):
        raise PydanticCustomError("empty_prompt", "must not be empty", {"hint": "Say what the video should show."})
    return prompt


def _said_in_turn(prompts: object) -> object:
    return _said((prompts,) if isinstance(prompts, str) else prompts) if prompts else ()


class GenerationRequest(Model):
    """One video, or a batch of them, to be made. `None` means: as the model's preset says."""

    prompt: Annotated[str | tuple[str, ...], BeforeValidator(_said), Hint(lines=3)]
    """What the video shows; several prompts make one video each."""

    negative_prompt: Annotated[str | None, Hint(lines=2)] = None
    """What it should not show, for the unguided half of guidance; default: the preset's."""

    model: str = "nano"
    """Name of a preset; `easyanimate presets list` names them. Default: nano."""

    weights: Annotated[str | None, BeforeValidator(_path_as_text), Hint(media="file", advanced=True)] = None
    """Folder, or id on Hugging Face or ModelScope, of the weights; default: where the preset says."""

    transformer_path: Annotated[str | None, BeforeValidator(_path_as_text), Hint(media="file", advanced=True)] = None
    """File or folder of another denoiser instead of the model's own. Default: the model's own."""

    vae_path: Annotated[str | None, BeforeValidator(_path_as_text), Hint(media="file", advanced=True)] = None
    """File or folder of another VAE instead of the model's own. Default: the model's own."""

    motion_path: Annotated[str | None, BeforeValidator(_path_as_text), Hint(media="file", advanced=True)] = None
    """File or folder of a motion module, which makes a video model of an image model (V1). Default: none."""

    config: Annotated[str | None, BeforeValidator(_path_as_text), Hint(media="file", advanced=True)] = None
    """One of the original's model configs (YAML), whose settings stand above the model's own. Default: none."""

    loras: tuple[Lora, ...] = ()
    """LoRA files that change the model's style or subject, PATH or PATH=WEIGHT; several add up. Default: none."""

    size: Annotated[Size | None, Hint(unit="px")] = None
    """HEIGHTxWIDTH of a frame in pixels, as 384x672; rounded down to what the model can do. Default: the preset's."""

    resolution: Annotated[int, Field(ge=32, le=2048), Hint(unit="px", advanced=True)] | None = None
    """Instead of a size: take the ratio of the first condition's picture or video, and as many pixels as a square of
    this side, 32…2048. Default: the size decides."""

    frames: Annotated[int, Field(ge=1, le=4096), Hint(unit="frames")] | None = None
    """Length in frames, 1…4096 (1 makes a picture); rounded down to what the model can do. Default: the preset's."""

    fps: Annotated[float, Field(gt=0, le=120), Hint(unit="frames/s")] | None = None
    """Frames per second of the written video, above 0 to 120; default: the preset's."""

    steps: Annotated[int, Field(ge=1, le=1000), Hint(unit="steps")] | None = None
    """Denoising steps, 1…1000; more is slower and finer. Default: the preset's."""

    guidance: Annotated[float, Field(ge=1, le=30)] | None = None
    """Classifier-free guidance scale, 1…30; 1 turns guidance off and halves the work. Default: the preset's."""

    guidance_rescale: Annotated[float, Field(ge=0, le=1), Hint(advanced=True)] = 0.0
    """How far guidance is scaled back to the conditional prediction's deviation (arXiv:2305.08891), 0…1. Default: 0."""

    seed: Annotated[int, Field(ge=0, lt=_SEEDS), Hint(widget="number")] | None = None
    """Where noise comes from, 0…2⁶³−1; the same seed makes the same video. Default: drawn at random and recorded."""

    videos_per_prompt: Annotated[int, Field(ge=1, le=64)] = 1
    """Videos of each prompt, 1…64. Default: 1."""

    sampler: Annotated[Choice[Sampler], Among(SAMPLERS)] | None = None
    """Sampler by name, with its options; default: the preset's."""

    conditions: tuple[Annotated[Choice[Conditioner], Among(CONDITIONERS)], ...] = ()
    """What steers the video besides the prompt: pictures, videos, motions. Default: none."""

    segment_frames: Annotated[int, Field(ge=2, le=4096), Hint(unit="frames", advanced=True)] | None = None
    """Make a long video in segments of this many frames, 2…4096, each going on from the one before. Default: in one
    piece."""

    segment_overlap: Annotated[int, Field(ge=1, le=64), Hint(unit="frames", advanced=True)] = 4
    """Frames that a segment shares with the one before, 1…64; they are cross-faded. Default: 4."""

    segment_prompts: Annotated[tuple[str, ...], BeforeValidator(_said_in_turn), Hint(lines=3, advanced=True)] = ()
    """Prompts of the second segment and those after it; the last one goes on. Default: the prompt throughout."""

    offload: Annotated[Choice[OffloadStrategy], Among(OFFLOAD), Hint(advanced=True)] = Field(
        default="auto", validate_default=True
    )
    """Where weights are while they are not used. Default: auto."""

    attention: Annotated[Choice[AttentionBackend], Among(ATTENTION), Hint(advanced=True)] = Field(
        default="auto", validate_default=True
    )
    """How the denoiser computes attention; 'auto' measures what is fastest here. Default: auto."""

    storage: Annotated[Choice[Storage], Among(STORAGE), Hint(advanced=True)] = Field(
        default="auto", validate_default=True
    )
    """Type in which weights are kept. Default: auto."""

    vram_budget: Annotated[Bytes, Field(gt=0), Hint(unit="bytes", advanced=True)] | None = None
    """Bytes of the device's memory that the whole run may take, as 8GiB; 'auto' and 'stream' keep to it. Default: what
    is free."""

    step_caches: tuple[Annotated[Choice[StepCache], Among(STEP_CACHES)], ...] = ()
    """Answer some denoising steps from earlier ones: faster, and not exactly the same video. Default: none."""

    match_colours: Annotated[bool, Hint(advanced=True)] = False
    """Keep the first frame's colour statistics through the clip (mean and spread in L*a*b*). Default: off."""

    scale: Annotated[int, Field(ge=1, le=16), Hint(unit="times")] = 1
    """Whole factor by which finished frames are enlarged, 1…16, without smoothing. Default: 1."""

    @model_validator(mode="before")
    @classmethod
    def _memory_mode(cls, document: Any) -> Any:
        """The original's memory modes decide two fields."""
        return memory_mode(document) if isinstance(document, Mapping) else document

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, one or many."""
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt

    @property
    def batch(self) -> int:
        """Videos in all: prompts × videos per prompt. Videos of one prompt are neighbours."""
        return len(self.prompts) * self.videos_per_prompt

    def seeded(self) -> GenerationRequest:
        """This request with a seed: its own, or one drawn now (below 2³², so that people and JSON can repeat it)."""
        return self if self.seed is not None else self.model_copy(update={"seed": secrets.randbelow(2**32)})

    def sample_seeds(self) -> tuple[int, ...]:
        """One seed per video of the batch: sample *i* uses `(seed + i) mod 2⁶³`.

        A sample therefore does not depend on the others: making it alone with its own seed makes the same video.

        Raises:
            ValueError: the request has no seed yet; see `seeded`.
        """
        if self.seed is None:
            raise ValueError("the request has no seed; take seeded() first")
        return tuple((self.seed + index) % _SEEDS for index in range(self.batch))
