"""Conditioning against recorded values: pixels, masks and noise, the inpaint transformer, and whole runs.

Sources: tests/goldens/i2v_latents, transformer_v5_1_inp, pipe_v5_1_inp and long_video, recorded from the reference
system in float32 on the CPU with tiny random weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from easyanimate_core.conditioning.frames import known_frames
from easyanimate_core.conditioning.inpaint import augment
from easyanimate_core.conditioning.masks import hidden_where_white
from easyanimate_core.conditioning.pixels import fit_clip, fit_picture, read_picture
from easyanimate_core.data import Geometry, Inlet, State, TextEmbedding
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.events import SILENT, CancelToken
from easyanimate_core.interfaces import Toolbox
from easyanimate_core.offload.resident import Resident
from easyanimate_core.pipeline import default_plan, run
from easyanimate_core.pipeline.denoise import Denoise
from easyanimate_core.request import GenerationRequest
from easyanimate_core.samplers.catalog import Flow
from easyanimate_core.samplers.options import FlowOptions
from easyanimate_core.schema import parse
from easyanimate_core.vae.base import resize_map
from easyanimate_core.vae.magvit import Magvit
from golden import Call, assert_close, load_case

HELPERS = load_case("i2v_latents")
TRANSFORMER = load_case("transformer_v5_1_inp")
PIPELINE = load_case("pipe_v5_1_inp")

INLETS = (Inlet("mask", "channels", 1), Inlet("masked_video", "channels", 16))


def calls(op: str) -> list[Call]:
    return [call for call in HELPERS.calls if call.op == op]


# --- pixels and masks ------------------------------------------------------------------------------


def pictures(images: Tensor | None, size: Sequence[int], folder: Path | None) -> list[Tensor]:
    """Recorded images as pictures from Python, or written to files and read again."""
    found = []
    for index, image in enumerate([] if images is None else images):
        given: Any = Image.fromarray(image.numpy())
        if folder is not None:
            given.save(folder / f"{index}.png")
            given = str(folder / f"{index}.png")
        found.append(fit_picture(read_picture(given), *size))
    return found


@pytest.mark.feature("C044", "C035")
@pytest.mark.parametrize("call", [call for call in calls("image_to_video_latent") if call.inputs], ids=str)
def test_start_and_end_pictures(call: Call, tmp_path: Path) -> None:
    size, frames = call.kwargs["sample_size"], call.kwargs["video_length"]
    where = [tmp_path / name if call.kwargs["path"] else None for name in ("start", "end")]
    for folder in where:
        if folder is not None:
            folder.mkdir()
    start = pictures(call.inputs["start"], size, where[0])
    known = known_frames(start, pictures(call.inputs.get("end"), size, where[1]), frames)
    outputs = {"input_video": known.pixels, "input_video_mask": known.hidden * 255}
    assert_close(call, outputs, only=outputs)
    first = (start[0].movedim(0, -1) * 255).round().to(torch.uint8)
    assert_close(call, {"clip_image": first}, only=["clip_image"])


@pytest.mark.feature("C044", "C035")
@pytest.mark.parametrize("call", calls("video_to_video_latent"), ids=str)
def test_a_video_and_its_mask(call: Call) -> None:
    (height, width), frames = call.kwargs["sample_size"], call.kwargs["video_length"]
    pixels = fit_clip(call.inputs["frames"][:frames].numpy(), height, width)[None]
    mask = call.inputs.get("mask_image")
    painted = torch.full((height, width), 255, dtype=torch.uint8) if mask is None else mask
    hidden = hidden_where_white(painted[None].numpy(), frames, height, width)
    outputs = {"input_video": pixels, "input_video_mask": hidden * 255}
    assert_close(call, outputs, only=outputs)


@pytest.mark.feature("C044")
@pytest.mark.parametrize("call", [call for call in HELPERS.calls if "ref_image" in call.inputs], ids=str)
def test_a_reference_picture(call: Call) -> None:
    pixels = fit_picture(read_picture(call.inputs["ref_image"].numpy()), *call.kwargs["sample_size"])
    assert_close(call, {"ref_image": pixels[None, :, None]}, only=["ref_image"])


@pytest.mark.feature("C069")
@pytest.mark.parametrize("call", calls("resize_mask"), ids=str)
def test_masks_come_to_the_latents_grid(call: Call) -> None:
    frames, height, width = call.kwargs["latent_size"]
    alone = call.kwargs["process_first_frame_only"]
    resized = resize_map(call.inputs["mask"], (frames, height, width), first_frame_alone=alone)
    assert_close(call, {"mask": resized})


@pytest.mark.feature("C068")
@pytest.mark.parametrize("call", calls("add_noise_to_reference_video"), ids=str)
def test_noise_on_known_pixels(call: Call) -> None:
    image = call.inputs["image"]
    noise = torch.randn(image.shape, generator=torch.Generator("cpu").manual_seed(call.kwargs["seed"]))
    assert_close(call, {"image": augment(image, noise, call.kwargs["ratio"])})


# --- models ----------------------------------------------------------------------------------------


class Watched(MMDiT):
    """The denoiser, remembering what it was given."""

    def embed(self, latents: Tensor, timestep: Tensor, text: Any, conditions: Any, **more: Any) -> Any:
        self.seen.append((timestep, conditions))
        return super().embed(latents, timestep, text, conditions, **more)


def built(kind: type[nn.Module], part: str) -> Any:
    known = inspect.signature(kind.__init__).parameters
    module = kind(**{key: value for key, value in PIPELINE.config[part].items() if key in known})
    module.load_state_dict(PIPELINE.state_dict(part), strict=True)
    return module.eval()


@cache
def models() -> tuple[Any, Any]:
    denoiser = built(Watched, "transformer")
    denoiser.declare(INLETS)
    return denoiser, built(Magvit, "vae")


@pytest.mark.feature("C011", "C035")
def test_the_transformer_with_inlets() -> None:
    (call,) = TRANSFORMER.calls
    denoiser, _ = models()
    denoiser.seen = []
    given = call.inputs
    conditions = {"mask": given["inpaint_latents"][:, :1], "masked_video": given["inpaint_latents"][:, 1:]}
    with torch.no_grad():
        sample = denoiser(
            given["hidden_states"],
            given["timestep"],
            given["encoder_hidden_states"],
            conditions=conditions,
            image_rotary_emb=given["image_rotary_emb"],
        )
    assert_close(call, {"sample": sample}, only=["sample"])


# --- whole runs ------------------------------------------------------------------------------------


def condition_of(call: Call) -> dict[str, Any]:
    """What a user would say to get this run. The recorded mask is 0 or 255."""
    video = {"video": call.inputs["video"][0], "mask": call.inputs["mask_video"][0] / 255}
    noise = {"noise": call.kwargs["noise_aug_strength"]}
    if "strength" in call.kwargs:
        return {"name": "source-video", "strength": call.kwargs["strength"], **video, **noise}
    return {"name": "frames", **video, **noise}


def outputs_of(call: Call) -> dict[str, Tensor]:
    said, given = call.kwargs, call.inputs
    denoiser, vae = models()
    denoiser.seen = []
    request = GenerationRequest(
        prompt="given as an embedding",
        negative_prompt="given as an embedding",
        steps=said["num_inference_steps"],
        guidance=said["guidance_scale"],
        guidance_rescale=said["guidance_rescale"],
        fps=8,
        seed=said["generator_seed"],
        conditions=(condition_of(call),),
    )
    state = State(
        request,
        Geometry(said["height"], said["width"], said["video_length"]),
        text=(TextEmbedding(given["prompt_embeds"], given["prompt_attention_mask"]),),
        negative_text=(TextEmbedding(given["negative_prompt_embeds"], given["negative_prompt_attention_mask"]),),
    )
    toolbox = Toolbox(
        text_encoders=(),
        denoiser=denoiser,
        vae=vae,
        sampler=Flow(parse(FlowOptions, {**said["scheduler"]["config"]})),
        offload=Resident(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        events=SILENT,
        cancel=CancelToken(),
    )
    outputs: dict[str, Tensor] = {}
    plan = default_plan(request)
    plan.replace("denoise", Denoise(on_step=lambda i, latents: outputs.update({f"latents_step{i}": latents})))
    video = run(plan, state, toolbox).video
    assert video is not None
    _, first = denoiser.seen[0]
    timesteps = torch.stack([seen[0] for seen, _ in denoiser.seen])
    inpaint = torch.cat(list(first.values()), dim=1)
    return {**outputs, "frames": video.frames, "timesteps": timesteps, "first_step.inpaint_latents": inpaint}


@pytest.mark.feature("C035", "C033", "C068", "C069")
@pytest.mark.parametrize("call", PIPELINE.calls, ids=str)
def test_every_step_and_every_frame_is_as_recorded(call: Call) -> None:
    # The reference recorded one more argument, which its transformer ignores.
    wanted = [name for name in call.expected if name != "first_step.image_meta_size"]
    assert_close(call, outputs_of(call), only=wanted)


def test_the_cases_cover_what_they_should() -> None:
    assert {call.name for call in PIPELINE.calls} == {
        "start_image",
        "start_image_noise",
        "all_masked",
        "region_strength",
    }
