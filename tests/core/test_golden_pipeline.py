"""Whole sampling runs against recorded ones: every step's latents and the frames.

Source: tests/goldens/pipe_v5_1_t2v, recorded from the reference system in float32 on the CPU with tiny random weights.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easyanimate_core.data import Geometry, State, TextEmbedding
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
from easyanimate_core.vae.magvit import Magvit
from golden import Call, assert_close, load_case

CASE = load_case("pipe_v5_1_t2v")
# Step caches are another room; these two calls are its tests.
CALLS = [call for call in CASE.calls if "teacache" not in call.kwargs]


class Watched(MMDiT):
    """The denoiser, remembering the timesteps that it was given."""

    def embed(self, latents: Tensor, timestep: Tensor, *rest: Any, **more: Any) -> Any:
        self.seen.append(timestep)
        return super().embed(latents, timestep, *rest, **more)


def built(kind: type[nn.Module], part: str) -> Any:
    known = inspect.signature(kind.__init__).parameters
    module = kind(**{key: value for key, value in CASE.config[part].items() if key in known})
    module.load_state_dict(CASE.state_dict(part), strict=True)
    return module.eval()


@cache
def models() -> tuple[Any, Any]:
    return built(Watched, "transformer"), built(Magvit, "vae")


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
        seed=0,
    )
    state = State(
        request,
        Geometry(said["height"], said["width"], said["video_length"]),
        text=(TextEmbedding(given["prompt_embeds"], given["prompt_attention_mask"]),),
        negative_text=(TextEmbedding(given["negative_prompt_embeds"], given["negative_prompt_attention_mask"]),),
        latents=given["latents"],
    )
    toolbox = Toolbox(
        text_encoders=(),
        denoiser=denoiser,
        vae=vae,
        sampler=Flow(parse(FlowOptions, said["scheduler"]["config"])),
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
    assert all(len(seen) == (2 if said["guidance_scale"] > 1 else 1) for seen in denoiser.seen)
    return {**outputs, "frames": video.frames, "timesteps": torch.stack([seen[0] for seen in denoiser.seen])}


@pytest.mark.feature("C034", "C030", "C032")
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_every_step_and_every_frame_is_as_recorded(call: Call) -> None:
    # The reference also recorded an argument that its transformer ignores.
    wanted = [name for name in call.expected if not name.startswith("first_step.")]
    assert {"frames", "timesteps", "latents_step0"} <= set(wanted)
    assert_close(call, outputs_of(call), only=wanted)


def test_the_cases_cover_what_they_should() -> None:
    assert {call.name for call in CALLS} == {
        "flow_shift1",
        "flow_shift3_rescale",
        "flow_dynamic",
        "no_cfg",
        "image",
        "teacache_off",
    }
