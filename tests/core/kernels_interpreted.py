"""Runs every kernel in Triton's interpreter and prints how far it is from its definition, as JSON.

A program of its own, run with TRITON_INTERPRET=1: the interpreter must be chosen before the first kernel is decorated.
bfloat16 is left out: the interpreter's product of it is wrong. Every buffer begins as NaN, so that nothing unwritten
goes unnoticed.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.kernels import use
from easyanimate_core.kernels.ada_norm import OP as ADA_NORM
from easyanimate_core.kernels.attention.op import ATTENTION_OP, INT8_OP
from easyanimate_core.kernels.gate_residual_norm import OP as GATE_RESIDUAL_NORM
from easyanimate_core.kernels.group_norm_silu import OP as GROUP_NORM_SILU
from easyanimate_core.kernels.qk_norm_rope import OP as QK_NORM_ROPE
from easyanimate_core.kernels.scaled_linear import OP as SCALED_LINEAR
from easyanimate_core.kernels.scaled_linear import quantise

Case = tuple[str, Any, tuple[Any, ...]]


def wide(value: Any) -> Any:
    return (
        value.double()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype.itemsize > 1
        else value
    )


def apart(got: Any, exact: Any) -> float:
    pairs = zip(got, exact, strict=True) if isinstance(got, tuple) else ((got, exact),)
    return max(float((g.double() - e).norm() / e.norm()) for g, e in pairs)


def cases(dtype: torch.dtype) -> Iterator[Case]:
    def r(*shape: int) -> Tensor:
        return torch.randn(*shape).to(dtype)

    outlier = r(5, 2, 33)
    outlier[2, :, 7] = 300.0
    for what, x in (("odd width", r(5, 2, 33)), ("strided", r(33, 2, 5).transpose(0, 2)), ("outlier", outlier)):
        vectors, gates = r(2, 6, 33), r(2, 7, 33)[:, 1:]
        yield f"ada_norm: {what}", ADA_NORM, (x, r(33), r(33), vectors, 2, 1e-5)
        yield f"ada_norm: {what}, no weights, vectors shared, no text", ADA_NORM, (x, None, None, r(1, 2, 33), 0, 1e-5)
        rest = (r(33), None, vectors, 3, 1e-5)
        yield f"gate_residual_norm: {what}", GATE_RESIDUAL_NORM, (x, r(5, 2, 33), gates, *rest)
        yield f"gate_residual_norm: {what}, shared", GATE_RESIDUAL_NORM, (x, r(5, 2, 33), r(1, 6, 33), *rest)
    for length, tokens, heads, dim in ((3, 7, 3, 16), (0, 5, 1, 64), (2, 3, 5, 24)):
        tables = torch.randn(tokens, dim), torch.randn(tokens, dim)
        norms = [r(dim) for _ in range(4)]
        x = r(length + tokens, 2, heads, dim)
        yield f"qk_norm_rope: {length}+{tokens}x{heads}x{dim}", QK_NORM_ROPE, (x, *norms, *tables, 1e-6)
    mean = torch.tensor(30.0 if dtype == torch.float16 else 1000.0)
    for what, x in (
        ("small", r(2, 12, 3, 9, 7)),
        ("many parts", r(1, 4, 1, 70, 66)),
        ("large mean", r(1, 4, 2, 5, 5) + mean),
    ):
        x = x.to(dtype)
        yield f"group_norm_silu: {what}", GROUP_NORM_SILU, (x, r(x.shape[1]), r(x.shape[1]), 2, 1e-6, True)
    yield "group_norm_silu: norm alone", GROUP_NORM_SILU, (r(1, 6, 2, 4, 3), r(6), r(6), 3, 1e-6, False)
    for kind in (torch.int8, torch.float8_e4m3fn):
        stored, scale = quantise(torch.randn(70, 90), kind)
        yield f"scaled_linear: {kind}", SCALED_LINEAR, (r(2, 9, 90), stored, scale, r(70))
        yield f"scaled_linear: {kind}, cast alone, one row", SCALED_LINEAR, (r(90), stored, None, None)
    for length, keys, dim in ((70, 70, 64), (33, 90, 24), (1, 5, 128)):
        # Queries token by token with the batch inside, as a block has them; keys and values otherwise.
        q, k, v = r(length, 2, 2, dim).permute(1, 2, 0, 3), r(2, keys, 2, dim).transpose(1, 2), r(2, 2, keys, dim)
        yield f"attention: {length} of {keys}x{dim}", ATTENTION_OP, (q, k, v, dim**-0.5, None)
        yield f"attention: {length} of {keys}x{dim}, sharp", ATTENTION_OP, (4 * q, 4 * k, v, dim**-0.5, None)
        unit = (x / x.float().norm(dim=-1, keepdim=True).to(dtype) for x in (q, k))
        yield f"attention: {length} of {keys}x{dim}, bounded", ATTENTION_OP, (*unit, v, 8.0, 8.1)


def bytes_case(outliers: bool) -> tuple[float, float]:
    """Error of 8-bit attention against the exact one, with and without the keys' mean taken away."""
    q, k, v = (torch.randn(1, 2, 65, 64) for _ in range(3))
    if outliers:
        k = k + 20 * torch.randn(64)
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    return apart(INT8_OP(q, k, v, 0.125), exact), apart(INT8_OP.reference(q, k, v, 0.125), exact)


def network() -> float:
    """A whole small transformer through all its kernels, against the same one without."""
    torch.manual_seed(0)
    sizes = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 3,
        "mmdit_layers": 2,
        "time_embed_dim": 32,
    }
    model = MMDiT(**sizes, text_embed_dim=24, text_embed_dim_t5=None, add_norm_text_encoder=True).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.1)
    inputs = torch.randn(2, 16, 2, 6, 4), torch.tensor([900.0, 900.0]), torch.randn(2, 5, 24)
    with torch.no_grad():
        with use("triton"):
            fused = model(*inputs)
        return apart(fused, model(*inputs).double())


def main() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", "set TRITON_INTERPRET=1"
    warnings.filterwarnings(
        "ignore", message="overflow encountered in exp"
    )  # numpy, in a sigmoid that is 0 all the same
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # fills what torch.empty gives with NaN
    assert torch.empty(1).isnan().all()
    found: dict[str, list[float]] = {}
    for dtype in (torch.float32, torch.float16):
        for name, op, arguments in cases(dtype):
            exact = op.reference(*(wide(value) for value in arguments))
            with use("triton"):
                fused = op(*arguments)
            plain: Callable[..., Any] = op.reference
            found[f"{name} ({str(dtype)[6:]})"] = [apart(fused, exact), apart(plain(*arguments), exact)]
    with use("triton"):
        for outliers in (False, True):
            found[f"int8_attention: {'outliers' if outliers else 'plain'}"] = list(bytes_case(outliers))
    found["network"] = [network(), 0.0]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
