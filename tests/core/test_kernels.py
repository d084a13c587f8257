"""Every kernel equals its definition, behaves as an operator of torch, and is chosen as documented.

The kernels run in Triton's interpreter here, in a process of its own (`kernels_interpreted.py`), and are compiled for
real GPUs without one; with a GPU, the tests marked `gpu` run them there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from easyanimate_core.errors import InvalidOptions, KernelUnavailable
from easyanimate_core.kernels import NAMES, unavailable, use, wanted
from easyanimate_core.kernels.ada_norm import OP as ADA_NORM
from easyanimate_core.kernels.ada_norm import ada_norm
from easyanimate_core.kernels.attention.op import ATTENTION_OP, INT8_OP, largest_bound
from easyanimate_core.kernels.gate_residual_norm import OP as GATE_RESIDUAL_NORM
from easyanimate_core.kernels.group_norm_silu import OP as GROUP_NORM_SILU
from easyanimate_core.kernels.op import Op, fusing
from easyanimate_core.kernels.qk_norm_rope import OP as QK_NORM_ROPE
from easyanimate_core.kernels.scaled_linear import OP as SCALED_LINEAR
from easyanimate_core.kernels.scaled_linear import quantise, scaled_linear, too_old

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def arguments(
    op: Op, dtype: torch.dtype = torch.float32, device: str = "cpu", *, grad: bool = False
) -> tuple[Any, ...]:
    """Small odd arguments of an op."""

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device).to(dtype).requires_grad_(grad)

    match op.name:
        case "ada_norm":
            return r(5, 2, 33), r(33), None, r(2, 6, 33), 2, 1e-5
        case "gate_residual_norm":
            return r(5, 2, 33), r(5, 2, 33), r(2, 6, 33), r(33), r(33), r(1, 6, 33), 2, 1e-5
        case "qk_norm_rope":
            tables = [torch.randn(7, 16, device=device) for _ in range(2)]
            return (r(10, 2, 3, 16), *(r(16) for _ in range(4)), *tables, 1e-6)
        case "group_norm_silu":
            return r(2, 12, 3, 9, 7), r(12), r(12), 4, 1e-6, True
        case "scaled_linear":
            return r(2, 9, 90), *(part.to(device) for part in quantise(torch.randn(70, 90), torch.int8)), r(70)
        case "attention":
            # Token by token with the batch inside, as a block has it; the result lies like the queries.
            q = torch.randn(33, 2, 2, 24, device=device).to(dtype).permute(1, 2, 0, 3).requires_grad_(grad)
            return q, r(2, 2, 90, 24), r(2, 2, 90, 24), 0.2, None
        case _:
            return r(1, 2, 33, 64), r(1, 2, 90, 64), r(1, 2, 90, 64), 0.125


OPS = (ADA_NORM, GATE_RESIDUAL_NORM, QK_NORM_ROPE, GROUP_NORM_SILU, SCALED_LINEAR, ATTENTION_OP, INT8_OP)
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)


def joined(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (results,) if isinstance(results, Tensor) else tuple(results)


@needs_triton
@pytest.mark.feature("C052")
def test_in_the_interpreter_each_kernel_is_as_close_to_the_exact_result_as_its_definition() -> None:
    """Odd shapes, strides, outliers, buffers full of NaN; float32 and float16.

    If this fails: the printed pairs are relative errors against float64 of the kernel and of plain torch.
    """
    script = Path(__file__).with_name("kernels_interpreted.py")
    environ = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environ, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    errors: dict[str, list[float]] = json.loads(ran.stdout)
    assert len(errors) > 50
    rounding = {"float32": 5e-7, "float16": 2e-4, "plain": 0.0, "outliers": 0.0}
    for name, (kernel, definition) in errors.items():
        if name == "network":
            assert kernel < 1e-6, name
        elif name.startswith("int8"):
            # Taking the keys' mean away is what keeps outliers from costing more.
            assert kernel < 1.5e-2, name
        else:
            allowed = 1.5 * definition + rounding[name.rpartition("(")[2].rstrip(")")]
            assert kernel <= allowed, f"{name}: {kernel:.2e}, definition {definition:.2e}"


@every_op
def test_torch_can_trace_differentiate_and_compile_each_op(op: Op) -> None:
    """Schema, fake results, gradient and functionalisation, as `torch.library` checks them."""
    torch.library.opcheck(op.registered, arguments(op, grad=True))


@every_op
def test_gradients_are_those_of_the_definition(op: Op) -> None:
    given = arguments(op, grad=True)
    wanted_for = [a for a in given if isinstance(a, Tensor) and a.requires_grad]
    total = sum(part.square().sum() for part in joined(op.registered(*given)))
    plain = sum(part.square().sum() for part in joined(op.reference(*given)))
    assert isinstance(total, Tensor)
    assert isinstance(plain, Tensor)
    for got, want in zip(
        torch.autograd.grad(total, wanted_for, allow_unused=True),
        torch.autograd.grad(plain, wanted_for, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


@every_op
def test_on_a_cpu_the_definition_is_what_runs(op: Op) -> None:
    given = arguments(op)
    for got, want in zip(joined(op(*given)), joined(op.reference(*given)), strict=True):
        assert torch.equal(got, want)


def test_the_whole_op_compiles_into_one_graph() -> None:
    given = arguments(ADA_NORM)
    compiled: Callable[..., Tensor] = torch.compile(ada_norm, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*given), ada_norm(*given))


@needs_no_gpu
def test_asking_for_triton_where_it_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(ADA_NORM)
    with use("triton"), pytest.raises(KernelUnavailable, match=r"'ada_norm' cannot run: .*riton"):
        ada_norm(*given)
    monkeypatch.setenv("EASYANIMATE_KERNELS", "triton")
    with pytest.raises(KernelUnavailable):
        ada_norm(*given)
    with use("reference"):
        assert ada_norm(*given).shape == (5, 2, 33)


def test_the_variable_takes_three_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted() == "auto"
    monkeypatch.setenv("EASYANIMATE_KERNELS", "cuda")
    with pytest.raises(KernelUnavailable, match="EASYANIMATE_KERNELS is 'cuda'"):
        wanted()


@needs_no_gpu
def test_a_reason_says_what_is_missing() -> None:
    assert "riton" in str(unavailable("cpu"))


def test_where_gradients_are_wanted_nothing_is_fused() -> None:
    with use("triton"):
        assert not fusing(torch.zeros(1))
        with torch.no_grad():
            assert fusing(torch.zeros(1))
    with torch.no_grad():
        assert not fusing(torch.zeros(1))


def test_every_op_has_a_folder_with_its_definition_and_its_kernel() -> None:
    import easyanimate_core.kernels as kernels

    folder = Path(str(kernels.__file__)).parent
    assert {path.parent.name for path in folder.glob("*/triton.py")} == set(NAMES)
    assert {path.parent.name for path in folder.glob("*/reference.py")} == set(NAMES)


@pytest.mark.feature("C048")
@pytest.mark.parametrize(("dtype", "error"), [(torch.int8, 0.015), (torch.float8_e4m3fn, 0.04)])
def test_weights_in_one_byte_keep_their_rows(dtype: torch.dtype, error: float) -> None:
    weight = torch.randn(40, 64) * torch.logspace(-4, 4, 40)[:, None]
    weight[3] = 0
    stored, scale = quantise(weight, dtype)
    assert stored.dtype == dtype
    assert scale.shape == (40,)
    x = torch.randn(400, 64)
    exact, got = x @ weight.T, scaled_linear(x, stored, scale)
    rows = (got - exact).norm(dim=0) / exact.norm(dim=0).clamp_min(1e-30)
    assert float(rows.max()) < error
    torch.testing.assert_close(scaled_linear(x, stored), x @ stored.float().T)


def test_only_one_byte_types_are_stored() -> None:
    with pytest.raises(InvalidOptions, match=r"torch\.float16"):
        quantise(torch.zeros(2, 2), torch.float16)


def test_a_bound_is_safe_for_the_type() -> None:
    """With the shift that the kernel takes, the largest share fits and the smallest is still a normal number."""
    for dtype, shift in (
        (torch.float16, largest_bound(torch.float16) - 11.0),
        (torch.bfloat16, largest_bound(torch.bfloat16)),
    ):
        bound = torch.tensor(largest_bound(dtype), dtype=torch.float64)
        assert float(torch.exp(bound - shift)) < torch.finfo(dtype).max
        assert float(torch.exp(-bound - shift)) > torch.finfo(dtype).tiny


# What a kernel is launched with at the released size, and the type of each of its arguments.
COMPILED: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "gate_residual_norm": (
        "gate_residual_norm",
        {"eps": "fp32", **dict.fromkeys(("samples", "text", "width", "gates_stride", "vectors_stride"), "i32")},
        {"HAS_WEIGHT": True, "HAS_BIAS": True, "BLOCK": 4096},
    ),
    "qk_norm_rope": (
        "qk_norm_rope",
        {"eps": "fp32", "cos": "*fp32", "sin": "*fp32", **dict.fromkeys(("samples", "text", "count", "dim"), "i32")},
        {"HEADS": 64, "DIM": 64},
    ),
    "scaled_linear": (
        "scaled_linear",
        {"scale": "*fp32", "weight": "*i8", **dict.fromkeys(("rows", "columns", "inner", "x_stride"), "i32")},
        {"HAS_SCALE": True, "HAS_BIAS": True, "EXACT": False, "ROWS": 64, "COLUMNS": 64, "INNER": 64},
    ),
    "attention": (
        "attention",
        {"factor": "fp32", "shift": "fp32", **dict.fromkeys(("length", "keys", "dim", "heads"), "i32"),
         **{f"{t}_{s}": "i32" for t in ("q", "k", "v", "out") for s in ("sample", "head", "token")}},
        {"BOUNDED": True, "BYTES": False, "EXACT": False, "EVEN": False, "ROWS": 128, "KEYS": 64, "DIM": 64},
    ),
}  # fmt: skip


compiles = pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="triton is not installed, or its interpreter compiles nothing",
)


def compiled(name: str, capability: int, **other_types: str) -> Any:
    """A kernel, compiled for a GPU that is not here."""
    from importlib import import_module

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    folder, types, constants = COMPILED[name]
    types = {**types, **other_types}
    kernel = import_module(f"easyanimate_core.kernels.{folder}.triton")._kernel
    signature = {n: "constexpr" if n in constants else types.get(n, "*bf16") for n in kernel.arg_names}
    source = ASTSource(
        fn=kernel, signature=signature, constexprs={(kernel.arg_names.index(n),): v for n, v in constants.items()}
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})


@compiles
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", COMPILED)
def test_kernels_compile_for_a_gpu_that_is_not_here(name: str) -> None:
    built = compiled(name, 90)
    assert built.metadata.shared < 100_000
    assert built.asm["cubin"]


@compiles
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.feature("C048")
def test_float8_weights_go_to_the_kernel_only_where_it_compiles(capfd: pytest.CaptureFixture[str]) -> None:
    """Ampere widens bytes to numbers, but knows no float8; the definition serves it."""
    for capability in (80, 89):
        both = (capability // 10, capability % 10)
        assert too_old(torch.int8, both) is None
        if too_old(torch.float8_e4m3fn, both) is None:
            assert compiled("scaled_linear", capability, weight="*fp8e4nv").asm["cubin"]
        else:
            with pytest.raises(Exception, match="fp8e4nv not supported"):
                compiled("scaled_linear", capability, weight="*fp8e4nv")
    assert compiled("scaled_linear", 80, weight="*i8").asm["cubin"]
    assert too_old(torch.float8_e4m3fn, (8, 6)) == "compute capability 8.6 has no float8; it takes 8.9"


@pytest.mark.gpu
@every_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_on_a_gpu_each_kernel_is_as_close_to_the_exact_result_as_its_definition(op: Op, dtype: torch.dtype) -> None:
    given = arguments(op, dtype, "cuda")
    exact_given = tuple(
        a.double() if isinstance(a, Tensor) and a.is_floating_point() and a.dtype.itemsize > 1 else a for a in given
    )
    exact = joined(ATTENTION_OP.reference(*exact_given) if op is INT8_OP else op.reference(*exact_given))
    torch.use_deterministic_algorithms(True)  # buffers begin as NaN
    with torch.no_grad(), use("triton"):
        fused = joined(op(*given))
    plain = joined(op.reference(*given))
    for got, ours, want in zip(fused, plain, exact, strict=True):
        error, definition = ((x.double() - want).norm() / want.norm() for x in (got, ours))
        assert float(error) <= 1.5 * float(definition) + {4: 1e-6, 2: 4e-3}[dtype.itemsize]
