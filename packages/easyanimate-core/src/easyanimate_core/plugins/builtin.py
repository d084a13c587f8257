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
    ("v5.1-nano-inp", "", "tiny V5.1 image-to-video model inside the package"),
    ("v5.1-nano-control", "", "tiny V5.1 control-video model inside the package"),
    ("v5.1-nano-camera", "", "tiny V5.1 camera model inside the package"),
    ("v1", "PixArt-XL-2-512x512", "V1, text to video: PixArt with a motion module"),
    ("v1-image", "", "V1's base alone: PixArt, text to picture"),
    ("v2-512", "EasyAnimateV2-XL-2-512x512", "V2 at 512, text to video"),
    ("v2-768", "EasyAnimateV2-XL-2-768x768", "V2 at 768, text to video"),
    ("v3-512", "EasyAnimateV3-XL-2-InP-512x512", "V3 at 512, text and image to video"),
    ("v3-768", "EasyAnimateV3-XL-2-InP-768x768", "V3 at 768, text and image to video"),
    ("v3-960", "EasyAnimateV3-XL-2-InP-960x960", "V3 at 960, text and image to video"),
    ("v4-inp", "EasyAnimateV4-XL-2-InP", "V4, text, image and video to video"),
    ("v5-7b", "EasyAnimateV5-7b-zh", "V5 7B, text to video"),
    ("v5-7b-inp", "EasyAnimateV5-7b-zh-InP", "V5 7B, image and video to video"),
    ("v5-12b", "EasyAnimateV5-12b-zh", "V5 12B, text to video"),
    ("v5-12b-inp", "EasyAnimateV5-12b-zh-InP", "V5 12B, image and video to video"),
    ("v5-12b-control", "EasyAnimateV5-12b-zh-Control", "V5 12B, control video"),
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
    ("plan", "predict memory and time of a request"),
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

_GPU_ATTENTION: Final = (
    ("cudnn", "Cudnn", "cuDNN's fused attention through PyTorch"),
    ("flash", "Flash", "FlashAttention 3 or 2 where installed, else PyTorch's copy"),
    ("sage", "Sage", "SageAttention where installed: 8-bit products, a little off"),
    ("triton", "TritonAttention", "this SDK's fused kernel; also with 8-bit products"),
)

_STAGES: Final = (
    ("encode_text", "encode_text:EncodeText", "prompts to text embeddings"),
    ("condition", "condition:ConditionInlets", "pictures, videos and motions to conditions"),
    ("noise", "noise:DrawNoise", "initial latents"),
    ("denoise", "denoise:Denoise", "the diffusion loop"),
    ("decode", "decode:Decode", "latents to frames"),
    ("match_colours", "match_colours:MatchColours", "keep the first frame's colours"),
)

_BEFORE_V5_1: Final = ("v1", "v2", "v3", "v4", "v5")

_SAMPLERS: Final = (
    (
        "euler",
        "diffusion:Euler",
        "EulerOptions",
        ("EulerDiscreteScheduler",),
        "straight steps along the probability flow",
        _BEFORE_V5_1,
    ),
    (
        "euler-a",
        "diffusion:EulerAncestral",
        "EulerAncestralOptions",
        ("EulerAncestralDiscreteScheduler",),
        "Euler with new noise at every step",
        _BEFORE_V5_1,
    ),
    (
        "dpm++",
        "diffusion:DpmSolver",
        "DpmSolverOptions",
        ("DPMSolverMultistepScheduler",),
        "multistep DPM-Solver++; good with few steps",
        _BEFORE_V5_1,
    ),
    ("pndm", "pndm:Pndm", "PndmOptions", ("PNDMScheduler",), "pseudo linear multistep", _BEFORE_V5_1),
    # DDPM's schedule of noise, stepped as DDIM: what the original did with such checkpoints.
    (
        "ddim",
        "diffusion:Ddim",
        "DdimOptions",
        ("DDIMScheduler", "DDPMScheduler"),
        "denoising diffusion implicit models",
        ("v4", "v5"),
    ),
    # For weights that were distilled for it, which no release is: presets do not list it.
    (
        "lcm",
        "diffusion:Lcm",
        "LcmOptions",
        ("LCMScheduler",),
        "a few steps, for models and LoRAs distilled for it",
        _BEFORE_V5_1,
    ),
)
"""Name, target and options below `easyanimate_core.samplers`, aliases, summary, generations."""

_PLACES: Final = (
    ("auto", "resident:Auto", "", "as the planner decides for the request and the device"),
    ("resident", "resident:Resident", "", "all weights stay on the device"),
    ("model", "parts:Model", "", "a whole component at a time"),
    ("group", "parts:Group", "GroupOptions", "a few blocks at a time"),
    ("sequential", "parts:Sequential", "SequentialOptions", "layer by layer: least memory, slowest"),
    ("stream", "stream:Stream", "StreamOptions", "block by block, each fetched while the one before runs"),
)
"""Name, target and options below `easyanimate_core.offload`, summary."""

_TYPES: Final = (
    ("auto", "native:Auto", "", "as the planner decides for the request and the device"),
    ("native", "native:Native", "", "weights are kept in the type they compute in"),
    ("float8", "narrow:Float8", "Float8Options", "linear layers in one byte per weight, floating"),
    ("int8", "narrow:Int8", "Int8Options", "linear layers in one byte per weight, whole numbers"),
)
"""Name, target and options below `easyanimate_core.storage`, summary."""

_CACHES: Final = (
    ("teacache", "teacache:TeaCache", "TeaCacheOptions", "skip the blocks while their input changes little"),
    ("first-block", "first_block:FirstBlock", "FirstBlockOptions", "skip all blocks but the first, which decides"),
    ("easycache", "easycache:EasyCache", "EasyCacheOptions", "skip steps while output follows input steadily"),
    ("cfg-gate", "cfg_gate:CfgGate", "CfgGateOptions", "compute the unguided half only early in a run"),
)
"""Name, target and options below `easyanimate_core.step_caches`, summary."""


def _register_conditioners(registrar: Registrar) -> None:
    registrar.add(
        slots.CONDITIONERS,
        "frames",
        "easyanimate_core.conditioning.frames:Frames",
        options="easyanimate_core.conditioning.options:FramesOptions",
        summary="pictures to start and end with, or parts of a video to keep",
        tags=["inlet:mask", "inlet:masked_video"],
    )
    registrar.add(
        slots.CONDITIONERS,
        "clip-image",
        "easyanimate_core.conditioning.picture:ClipImage",
        options="easyanimate_core.conditioning.options:ClipImageOptions",
        summary="a picture for the image encoder of a model that has one",
        tags=["inlet:image_tokens"],
    )
    # No inlet tags: a model without those inlets can start from a video too.
    registrar.add(
        slots.CONDITIONERS,
        "source-video",
        "easyanimate_core.conditioning.source_video:SourceVideo",
        options="easyanimate_core.conditioning.options:SourceVideoOptions",
        summary="a video to make a variation of",
    )


@hookimpl
def easyanimate_slots() -> Iterable[Slot[Any]]:
    """Open core's slots."""
    return slots.CORE_SLOTS


@hookimpl
def easyanimate_register(registrar: Registrar) -> None:
    """Register what core has."""
    _register_encoders(registrar)
    _register_denoisers(registrar)
    _register_vaes(registrar)
    _register_formats(registrar)
    _register_running(registrar)
    _register_memory(registrar)
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
        ported = [f"{released}-diffusers"] if name.startswith("v5.1-") else []
        registrar.add(slots.PRESETS, name, target, aliases=[released, *ported] if released else (), summary=summary)


def _register_encoders(registrar: Registrar) -> None:
    registrar.add(
        slots.TEXT_ENCODERS,
        "qwen2-vl",
        "easyanimate_core.text.qwen2_vl:Qwen2VLTextEncoder",
        aliases=["Qwen2VLForConditionalGeneration"],
        summary="language half of Qwen2-VL, penultimate layer",
        tags=["generation:v5.1"],
    )
    registrar.add(
        slots.TEXT_ENCODERS,
        "t5",
        "easyanimate_core.text.t5:T5TextEncoder",
        aliases=["mt5", "T5EncoderModel", "MT5EncoderModel"],
        summary="encoder of T5 or mT5, last layer",
        tags=[f"generation:{generation}" for generation in _BEFORE_V5_1],
    )
    registrar.add(
        slots.TEXT_ENCODERS,
        "bert",
        "easyanimate_core.text.bert:BertTextEncoder",
        aliases=["BertModel"],
        summary="BERT, last layer",
        tags=["generation:v4", "generation:v5"],
    )
    registrar.add(
        slots.IMAGE_ENCODERS,
        "clip",
        "easyanimate_core.images.clip:ClipImageEncoder",
        aliases=["CLIPVisionModelWithProjection"],
        summary="vision tower of CLIP",
        tags=["generation:v3", "generation:v4"],
    )


def _register_denoisers(registrar: Registrar) -> None:
    registrar.add(
        slots.DENOISERS,
        "mmdit",
        "easyanimate_core.denoisers.mmdit:MMDiT",
        aliases=["EasyAnimateTransformer3DModel"],
        summary="joint text-video diffusion transformer",
        tags=["generation:v5", "generation:v5.1"],
    )
    registrar.add(
        slots.DENOISERS,
        "pixart",
        "easyanimate_core.denoisers.pixart:PixArt",
        aliases=["Transformer3DModel", "Transformer2DModel"],
        summary="spatial-temporal diffusion transformer with motion modules",
        tags=["generation:v1", "generation:v2", "generation:v3"],
    )
    registrar.add(
        slots.DENOISERS,
        "hunyuan",
        "easyanimate_core.denoisers.hunyuan:Hunyuan",
        aliases=["HunyuanTransformer3DModel"],
        summary="full-attention transformer with text and picture by cross-attention",
        tags=["generation:v4"],
    )


def _register_vaes(registrar: Registrar) -> None:
    registrar.add(
        slots.VAES,
        "magvit",
        "easyanimate_core.vae.magvit:Magvit",
        aliases=["AutoencoderKLMagvit"],
        summary="3-D autoencoder in four temporal schemes",
        tags=["generation:v2", "generation:v3", "generation:v4", "generation:v5", "generation:v5.1"],
    )
    registrar.add(
        slots.VAES,
        "kl2d",
        "easyanimate_core.vae.kl2d:KL2d",
        aliases=["AutoencoderKL"],
        summary="diffusers' picture autoencoder, frame by frame",
        tags=["generation:v1"],
    )
    registrar.add(
        slots.VAES,
        "cogvideox",
        "easyanimate_core.vae.cogvideox:CogVideoX",
        aliases=["AutoencoderKLCogVideoX"],
        summary="diffusers' 3-D autoencoder of CogVideoX",
    )


def _register_formats(registrar: Registrar) -> None:
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
    registrar.add(
        slots.FORMATS,
        "motion-module",
        "easyanimate_core.checkpoints.easyanimate:MotionModuleFormat",
        summary="V1's motion module, for an image model beside it",
    )


def _register_running(registrar: Registrar) -> None:
    for name, target, options, aliases, summary, generations in _SAMPLERS:
        registrar.add(
            slots.SAMPLERS,
            name,
            f"easyanimate_core.samplers.{target}",
            options=f"easyanimate_core.samplers.options:{options}",
            aliases=aliases,
            summary=summary,
            tags=[f"generation:{generation}" for generation in generations],
        )
    registrar.add(
        slots.SAMPLERS,
        "flow",
        "easyanimate_core.samplers.catalog:Flow",
        options="easyanimate_core.samplers.options:FlowOptions",
        aliases=["FlowMatchEulerDiscreteScheduler"],
        summary="flow-matching Euler",
        tags=["generation:v5.1"],
    )
    _register_conditioners(registrar)
    for name, target, summary in _GPU_ATTENTION:
        registrar.add(
            slots.ATTENTION,
            name,
            f"easyanimate_core.kernels.attention.backends:{target}",
            options="easyanimate_core.kernels.attention.options:TritonAttentionOptions" if name == "triton" else None,
            summary=summary,
            tags=["device:cuda"],
        )
    registrar.add(
        slots.ATTENTION,
        "auto",
        "easyanimate_core.kernels.attention.auto:Auto",
        summary="the fastest exact one on this GPU, measured once; PyTorch's on a CPU",
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


def _register_memory(registrar: Registrar) -> None:
    for slot, package, table in (
        (slots.OFFLOAD, "offload", _PLACES),
        (slots.STORAGE, "storage", _TYPES),
        (slots.STEP_CACHES, "step_caches", _CACHES),
    ):
        home = f"easyanimate_core.{package}"
        for name, path, options, summary in table:
            model = f"{home}.options:{options}" if options else None
            registrar.add(slot, name, f"{home}.{path}", options=model, summary=summary)
