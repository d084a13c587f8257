"""Released sizes with random weights, ours and diffusers', over the same storage."""

from __future__ import annotations

from typing import Any

import torch
from measuring import Cell

from easyanimate_core.data import TextEmbedding
from easyanimate_core.denoisers.mmdit import MMDiT

TEXT = 256
"""Text tokens of a V5.1 prompt."""

SIZES: dict[str, dict[str, Any]] = {
    "12b": {"num_attention_heads": 48, "num_layers": 48, "mmdit_layers": 48, "text_embed_dim": 3584},
    "7b": {"num_attention_heads": 48, "num_layers": 36, "mmdit_layers": 18, "text_embed_dim": 3584},
    "tiny": {"num_attention_heads": 2, "num_layers": 2, "mmdit_layers": 2, "text_embed_dim": 64, "time_embed_dim": 32},
}
_COMMON = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "text_embed_dim_t5": None,
    "add_norm_text_encoder": True,
}

_PORT_NAMES = {
    "attn2.to_q": "attn1.add_q_proj", "attn2.to_k": "attn1.add_k_proj", "attn2.to_v": "attn1.add_v_proj",
    "attn2.to_out.0": "attn1.to_add_out", "attn2.norm_q": "attn1.norm_added_q", "attn2.norm_k": "attn1.norm_added_k",
}  # fmt: skip


def stir(module: torch.nn.Module) -> None:
    """Random weights in place: never zeros, which GPUs multiply faster."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            norm = parameter.ndim == 1 and "norm" in name and name.endswith("weight") and ".linear." not in name
            parameter.fill_(1.0) if norm else parameter.normal_(0, 0.02)


def ours(size: str, device: str, dtype: torch.dtype) -> MMDiT:
    """Our transformer, filled on the device."""
    with torch.device("meta"):
        model = torch.nn.Module.to(MMDiT(**_COMMON, **SIZES[size]), dtype)
    model = model.to_empty(device=device).eval()
    stir(model)
    return model


def theirs(model: MMDiT, size: str) -> torch.nn.Module:
    """Diffusers' transformer over the same weights; takes no further memory."""
    from diffusers import EasyAnimateTransformer3DModel

    with torch.device("meta"):
        port: torch.nn.Module = EasyAnimateTransformer3DModel(**_COMMON, **SIZES[size])
    state = {}
    for name, value in model.state_dict().items():
        for old, new in _PORT_NAMES.items():
            name = name.replace(f".{old}.", f".{new}.")
        state[name] = value
    port.load_state_dict(state, strict=True, assign=True)
    return port.eval()


def inputs(size: str, cell: Cell, device: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, timesteps and text of a guided step."""
    made = torch.Generator(device).manual_seed(0)
    latents = torch.randn(2, 16, *cell.latent, generator=made, device=device).to(dtype)
    text = torch.randn(2, TEXT, SIZES[size]["text_embed_dim"], generator=made, device=device).to(dtype)
    return latents, torch.full((2,), 500.0, device=device, dtype=dtype), text


def embedding(text: torch.Tensor) -> tuple[TextEmbedding, ...]:
    return (TextEmbedding(text, torch.ones(text.shape[:2], dtype=torch.long, device=text.device)),)


def step_flop(size: str, cell: Cell) -> float:
    """Multiply-adds count twice; both halves of guidance; products of the blocks alone, as `performance.md` counts."""
    c = SIZES[size]
    width, layers, tokens = 64 * c["num_attention_heads"], c["num_layers"], cell.tokens + TEXT
    return 2.0 * layers * (24.0 * width**2 * tokens + 4.0 * tokens**2 * width)


def gemm_ceiling(device: str, dtype: torch.dtype, side: int = 8192) -> float:
    """FLOP/s of a large product, the most that this device gives."""
    from measuring import seconds

    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    best = min(seconds(lambda: a @ b, device) for _ in range(10))
    return 2.0 * side**3 / best
