"""Our V5.1 pipeline against diffusers' on a CPU: `python benchmarks/cpu_pipeline.py [--tiny] [--pairs N] [--only S]`.

Both get the same random weights (every block with its own text weights), the same prompt, noise, steps and guidance, at
3:2, where diffusers' port agrees with the original. They run in turn on one thread; the figure is the median of the
pairs' ratios of processor time. Widths of the VAE are in the proportions of the released one; its full size decodes one
small clip besides, because small convolutions are a case of their own: there torch takes a slow loop where we do not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_vae import build
from measuring import TINY_CELLS, Cell, in_turn, ratio, save

import easyanimate_core as ea
from easyanimate_core.checkpoints.convert import convert_checkpoint
from easyanimate_core.checkpoints.save import save_component, write_json
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.testing.tiny import (
    SCHEDULER_CONFIG,
    TEXT_ENCODER_CONFIG,
    TRANSFORMER_CONFIG,
    VAE_CONFIG,
    write_tokenizer,
)
from easyanimate_core.text.qwen2_vl import Qwen2VLTextEncoder
from easyanimate_core.vae.magvit import Magvit

PROMPT = "a red circle moving right on a blue background"
PRESET = "v5.1-12b"


@dataclass(frozen=True)
class Case:
    """One size of model and video."""

    name: str
    cell: Cell
    steps: int
    heads: int
    layers: int
    vae: tuple[int, int, int, int]


CASES = (
    Case("small", Cell(128, 192, 9), 6, heads=3, layers=6, vae=(16, 32, 64, 64)),
    Case("medium", Cell(160, 240, 9), 4, heads=5, layers=6, vae=(32, 64, 128, 128)),
)
RELEASED = Cell(112, 112, 9)
"""What the VAE of full size decodes."""
TINY = (Case("tiny", Cell(128, 192, 5), 2, heads=2, layers=2, vae=(4, 4, 8, 8)),)


def write(folder: Path, case: Case) -> Path:
    """A checkpoint with random weights in the released layout."""
    torch.manual_seed(0)
    transformer = {
        **TRANSFORMER_CONFIG, "num_attention_heads": case.heads, "attention_head_dim": 64, "num_layers": case.layers,
        "mmdit_layers": case.layers, "time_embed_dim": 128, "text_embed_dim": 64,
    }  # fmt: skip
    vae = {**VAE_CONFIG, "block_out_channels": list(case.vae)}
    tokenizer = write_tokenizer(folder / "tokenizer", max_length=256)
    heads = {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    }
    text = {**TEXT_ENCODER_CONFIG, **heads, "hidden_size": 64, "intermediate_size": 128, "vocab_size": len(tokenizer)}
    model = MMDiT(**transformer)
    for name, parameter in model.named_parameters():
        if "norm" not in name or parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.03)
    save_component(
        folder / "transformer", {"_class_name": "EasyAnimateTransformer3DModel", **transformer}, model.state_dict()
    )
    save_component(folder / "vae", {"_class_name": "AutoencoderKLMagvit", **vae}, Magvit(**vae).state_dict())
    encoder = Qwen2VLTextEncoder(text, tokenizer)
    save_component(folder / "text_encoder", text, encoder.released_state_dict(), weights="model.safetensors")
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    return folder


def theirs(folder: Path) -> Any:
    import diffusers
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusers.utils.logging.set_verbosity_error()
        transformers.utils.logging.set_verbosity_error()
        # The text encoder holds only the layers that are read; the port fills in the others at random.
        pipe = diffusers.EasyAnimatePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def measure(case: Case, pairs: int, scratch: Path) -> dict[str, Any]:
    released = write(scratch / case.name, case)
    ported = convert_checkpoint(released, scratch / f"{case.name}-ported", "diffusers").path
    pipe, port = ea.load(PRESET, weights=released, device="cpu", dtype="float32"), theirs(ported)
    cell = case.cell
    noise = torch.randn(1, 16, *cell.latent, generator=torch.Generator().manual_seed(1))
    request = pipe.complete(
        prompt=PROMPT, negative_prompt="", frames=cell.frames, size=(cell.height, cell.width), steps=case.steps,
        guidance=6.0, seed=0,
    )  # fmt: skip
    plan = pipe.plan(request)

    def ours() -> torch.Tensor:
        state = pipe.walk(request, plan, latents=noise)
        assert state.video is not None
        return state.video.frames

    def diffusers() -> torch.Tensor:
        made = port(
            PROMPT, negative_prompt="", num_frames=cell.frames, height=cell.height, width=cell.width,
            num_inference_steps=case.steps, guidance_scale=6.0, latents=noise, output_type="pt",
        )  # fmt: skip
        frames: torch.Tensor = made.frames
        return frames.transpose(1, 2)

    whole = _compared(diffusers, ours, pairs)
    parts = _parts(pipe, port, case, noise, pairs)
    return {"case": case.name, "size": str(cell), "steps": case.steps, "pairs": pairs, **whole, "parts": parts}


def _parts(pipe: Any, port: Any, case: Case, noise: torch.Tensor, pairs: int) -> dict[str, Any]:
    """The same comparison of one step of the transformer, and of decoding."""
    toolbox = pipe.prepare()
    latents, text = torch.cat([noise, noise]), torch.randn(2, 256, 64)
    time_ = torch.tensor([500.0, 500.0])
    cases = {
        "step": (
            lambda: port.transformer(latents, time_, encoder_hidden_states=text, return_dict=False)[0],
            lambda: toolbox.denoiser(latents, time_, text),
        ),
        "decode": (
            lambda: port.vae.decode(noise, return_dict=False)[0],
            lambda: toolbox.vae.decode_video(noise * toolbox.vae.config.scaling_factor),
        ),
    }
    return {name: _compared(slow, fast, pairs) for name, (slow, fast) in cases.items()}


def released(pairs: int, *, tiny: bool) -> dict[str, Any]:
    """Decoding with the VAE at its full size."""
    cell = TINY_CELLS[0] if tiny else RELEASED
    with torch.no_grad():
        ours, port = build("tiny" if tiny else "released", "cpu", torch.float32)
    latents = torch.randn(1, 16, *cell.latent, generator=torch.Generator().manual_seed(1))
    scale = ours.config.scaling_factor
    found = _compared(
        lambda: port.decode(latents, return_dict=False)[0], lambda: ours.decode_video(latents * scale), pairs
    )
    return {"size": str(cell), **found}


@torch.no_grad()
def _compared(slow: Callable[[], torch.Tensor], fast: Callable[[], torch.Tensor], pairs: int) -> dict[str, Any]:
    # Which warms both up, too.
    off = float((slow() - fast()).abs().max())
    times = in_turn({"diffusers": slow, "ours": fast}, pairs, warm=0)
    return {
        "faster": ratio(times["diffusers"], times["ours"]), "largest_difference": off,
        "seconds": {name: round(statistics.median(t), 4) for name, t in times.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a dry run: smallest size, nothing written")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one of the sizes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        cases, pairs = (TINY, 1) if given.tiny else (CASES, given.pairs)
        cases = tuple(case for case in cases if given.only in (None, case.name))
        results = [measure(case, pairs, Path(scratch)) for case in cases]
    full = None if given.only else released(pairs, tiny=given.tiny)
    print(
        "| | size | steps | times faster | transformer step | decoding | largest difference |\n"
        "|---|---|---|---|---|---|---|"
    )
    for r in results:
        parts = r["parts"]
        print(
            f"| {r['case']} | {r['size']} | {r['steps']} | {r['faster']['median']:.2f}x ({r['faster']['low']:.2f} … "
            f"{r['faster']['high']:.2f}) | {parts['step']['faster']['median']:.2f}x | "
            f"{parts['decode']['faster']['median']:.2f}x | {r['largest_difference']:.1e} |"
        )
    if full is not None:
        faster = full["faster"]
        print(
            f"\nThe VAE at its full size, {full['size']}: decoding {faster['median']:.2f}x ({faster['low']:.2f} … "
            f"{faster['high']:.2f}), largest difference {full['largest_difference']:.1e}"
        )
    save("cpu_pipeline", {"results": results, "released_vae": full, "took": round(time.time() - began)}, dry=given.tiny)


if __name__ == "__main__":
    main()
