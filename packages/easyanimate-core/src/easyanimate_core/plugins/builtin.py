"""Core's own registrations: plugin number zero, through the hooks that everyone uses. Strings only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from easyanimate_core import slots
from easyanimate_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from easyanimate_core.registry import Registrar, Slot

__all__ = ["easyanimate_register", "easyanimate_slots"]

_PRESETS: Final = (
    ("nano", "", "tiny V5.1 text-to-video model inside the package; runs on a laptop"),
    ("v5.1-7b", "EasyAnimateV5.1-7b-zh", "V5.1 7B, text to video"),
    ("v5.1-7b-inp", "EasyAnimateV5.1-7b-zh-InP", "V5.1 7B, image and video to video"),
    ("v5.1-7b-control", "EasyAnimateV5.1-7b-zh-Control", "V5.1 7B, control video and reference image"),
    ("v5.1-7b-camera", "EasyAnimateV5.1-7b-zh-Control-Camera", "V5.1 7B, camera path and reference image"),
    ("v5.1-12b", "EasyAnimateV5.1-12b-zh", "V5.1 12B, text to video"),
    ("v5.1-12b-inp", "EasyAnimateV5.1-12b-zh-InP", "V5.1 12B, image and video to video"),
    ("v5.1-12b-control", "EasyAnimateV5.1-12b-zh-Control", "V5.1 12B, control video and reference image"),
    ("v5.1-12b-camera", "EasyAnimateV5.1-12b-zh-Control-Camera", "V5.1 12B, camera path and reference image"),
)
"""Name, name of the released folder, summary. The facts are in `presets/data/<name>.toml`."""

_COMMANDS: Final = (
    ("generate", "make a video from a prompt"),
    ("batch", "make many videos from a file of requests"),
    ("jobs", "list, resume, cancel and forget runs"),
    ("decode", "make a video from kept latents"),
    ("show", "tell what a video was made of"),
    ("verify", "check a video against its manifest"),
    ("replay", "make a video again and compare its frames"),
    ("presets", "list models and show their settings"),
    ("plugins", "list plugins and what they add"),
    ("models", "list, find, download and remove weights"),
    ("checkpoint", "inspect, verify, convert and hash weights"),
    ("doctor", "say what works on this machine, and why not the rest"),
    ("completion", "print the completion script of a shell"),
)

_STAGES: Final = (
    ("encode_text", "encode_text:EncodeText", "prompts to text embeddings"),
    ("condition", "condition:ConditionInlets", "pictures, videos and motions to conditions"),
    ("noise", "noise:DrawNoise", "initial latents"),
    ("denoise", "denoise:Denoise", "the diffusion loop"),
    ("decode", "decode:Decode", "latents to frames"),
    ("match_colours", "match_colours:MatchColours", "keep the first frame's colours"),
)


@hookimpl
def easyanimate_slots() -> Iterable[Slot[Any]]:
    """Open core's slots."""
    return slots.CORE_SLOTS


@hookimpl
def easyanimate_register(registrar: Registrar) -> None:
    """Register what core has."""
    _register_models(registrar)
    _register_running(registrar)
    for name, path, summary in _STAGES:
        registrar.add(slots.STAGES, name, f"easyanimate_core.pipeline.{path}", summary=summary)
    registrar.add(
        slots.STAGES,
        "upscale",
        "easyanimate_core.pipeline.upscale:Upscale",
        options="easyanimate_core.pipeline.options:UpscaleOptions",
        summary="enlarge frames by whole factors",
    )
    for name, summary in _COMMANDS:
        registrar.add(slots.COMMANDS, name, f"easyanimate_core.cli.{name}:command", summary=summary)
    for name, released, summary in _PRESETS:
        target = f"easyanimate_core.presets:data/{name}.toml"
        registrar.add(slots.PRESETS, name, target, aliases=[released] if released else (), summary=summary)


def _register_models(registrar: Registrar) -> None:
    registrar.add(
        slots.TEXT_ENCODERS,
        "qwen2-vl",
        "easyanimate_core.text.qwen2_vl:Qwen2VLTextEncoder",
        aliases=["Qwen2VLForConditionalGeneration"],
        summary="language half of Qwen2-VL, penultimate layer",
        tags=["generation:v5.1"],
    )
    registrar.add(
        slots.DENOISERS,
        "mmdit",
        "easyanimate_core.denoisers.mmdit:MMDiT",
        aliases=["EasyAnimateTransformer3DModel"],
        summary="joint text-video diffusion transformer",
        tags=["generation:v5", "generation:v5.1"],
    )
    registrar.add(
        slots.VAES,
        "magvit",
        "easyanimate_core.vae.magvit:Magvit",
        aliases=["AutoencoderKLMagvit"],
        summary="causal 3-D autoencoder",
        tags=["generation:v5", "generation:v5.1"],
    )
    registrar.add(
        slots.FORMATS,
        "easyanimate",
        "easyanimate_core.checkpoints.easyanimate:EasyAnimateFormat",
        summary="folders as released by EasyAnimate",
    )
    registrar.add(
        slots.FORMATS,
        "diffusers",
        "easyanimate_core.checkpoints.diffusers:DiffusersFormat",
        summary="V5.1 folders of diffusers' port",
    )
    registrar.add(
        slots.FORMATS,
        "training",
        "easyanimate_core.checkpoints.easyanimate:TrainingFormat",
        summary="weights.safetensors of an unfinished training run",
    )


def _register_running(registrar: Registrar) -> None:
    registrar.add(
        slots.SAMPLERS,
        "flow",
        "easyanimate_core.samplers.catalog:Flow",
        options="easyanimate_core.samplers.options:FlowOptions",
        aliases=["FlowMatchEulerDiscreteScheduler"],
        summary="flow-matching Euler",
        tags=["generation:v5.1"],
    )
    registrar.add(
        slots.CONDITIONERS,
        "frames",
        "easyanimate_core.conditioning.frames:Frames",
        options="easyanimate_core.conditioning.options:FramesOptions",
        summary="pictures to start and end with, or parts of a video to keep",
        tags=["inlet:mask", "inlet:masked_video"],
    )
    # No inlet tags: a model without those inlets can start from a video too.
    registrar.add(
        slots.CONDITIONERS,
        "source-video",
        "easyanimate_core.conditioning.source_video:SourceVideo",
        options="easyanimate_core.conditioning.options:SourceVideoOptions",
        summary="a video to make a variation of",
    )
    # Until the planner decides, 'auto' is what works everywhere.
    registrar.add(
        slots.OFFLOAD,
        "resident",
        "easyanimate_core.offload.resident:Resident",
        aliases=["auto"],
        summary="all weights stay on the device",
    )
    registrar.add(
        slots.STORAGE,
        "native",
        "easyanimate_core.offload.storage:Native",
        aliases=["auto"],
        summary="weights are kept in the type they compute in",
    )
    registrar.add(
        slots.ATTENTION,
        "sdpa",
        "easyanimate_core.kernels.attention.reference:Sdpa",
        summary="PyTorch's scaled_dot_product_attention",
    )
    registrar.add(
        slots.ATTENTION,
        "matmul",
        "easyanimate_core.kernels.attention.reference:Matmul",
        summary="two matrix products and a softmax; for training on short sequences on a CPU",
    )
