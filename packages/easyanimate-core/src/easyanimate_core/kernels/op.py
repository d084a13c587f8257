"""An op: its definition in torch, and a Triton kernel for where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor

from easyanimate_core.errors import KernelUnavailable

__all__ = ["VARIABLE", "Op", "Wanted", "fusing", "interpreting", "onednn", "unavailable", "use", "wanted"]

Wanted = Literal["auto", "reference", "triton"]
"""Which way to compute. `auto` takes Triton where it runs on a GPU, and the definition elsewhere."""

VARIABLE: Final = "EASYANIMATE_KERNELS"
"""Environment variable that says the same for a whole process."""

_CAPABILITY: Final = (8, 0)
_FORCED: Final[ContextVar[Wanted | None]] = ContextVar("easyanimate_kernels", default=None)


@contextmanager
def use(way: Wanted) -> Iterator[None]:
    """Inside, every op is computed this way; wins over the environment variable `EASYANIMATE_KERNELS`."""
    token = _FORCED.set(way)
    try:
        yield
    finally:
        _FORCED.reset(token)


# What a compiler takes for constant below cannot be traced, and changes neither shapes nor results.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def wanted() -> Wanted:
    """What `use`, else the environment, asks for.

    Raises:
        KernelUnavailable: the variable has another value.
    """
    forced = _FORCED.get()
    if forced is not None:
        return forced
    said = os.environ.get(VARIABLE, "auto")
    if said not in ("auto", "reference", "triton"):
        raise KernelUnavailable(f"{VARIABLE} is '{said}'", "Set it to auto, reference or triton.")
    return cast("Wanted", said)


def fusing(x: Tensor) -> bool:
    """Whether operations on this tensor may be kernels of ours: no gradient is wanted, and it lies on a CUDA device,
    or Triton is asked for by name. What a module fuses by hand asks this first; elsewhere it stays as it was."""
    if torch.is_grad_enabled():
        return False
    way = wanted()
    return way == "triton" or (way == "auto" and x.device.type == "cuda")


def onednn(*tensors: Tensor) -> bool:
    """Whether a float32 product on a CPU may go to oneDNN by name; torch itself prefers slower ways for some sizes.

    It may where oneDNN is there, nobody wants plain torch, and neither a compiler nor autocast is passed over.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or wanted() != "auto":
        return False
    fitting = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)
    return fitting and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def interpreting() -> bool:
    """Whether Triton runs its kernels in Python, on any device; decided before the first kernel is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def unavailable(device: str) -> str | None:
    """Why Triton kernels cannot run on a device such as `cuda:0`; `None` when they can."""
    if device.startswith("meta"):
        return None  # nothing runs there: who counts gets the shapes that the kernel would give
    if find_spec("triton") is None:
        return "triton is not installed; pip install 'easyanimate-core[triton]' (Linux)"
    if interpreting():
        return None
    if not device.startswith("cuda"):
        return f"Triton needs a CUDA device, this is '{device}'"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device here"
    has = torch.cuda.get_device_capability(device)
    if has < _CAPABILITY:
        return f"compute capability {has[0]}.{has[1]} is below {_CAPABILITY[0]}.{_CAPABILITY[1]}"
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _nobody_asked() -> bool:
    return _FORCED.get() is None and VARIABLE not in os.environ


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _takes_triton(op: str, device: str, misfit: str | None) -> bool:
    way = wanted()
    if way == "reference" or (way == "auto" and (not device.startswith("cuda") or misfit is not None)):
        return False
    reason = misfit or unavailable(device)
    # On the meta device nothing runs: there it means what a GPU would be given, definitions included.
    if reason is not None and way == "triton" and not device.startswith("meta"):
        raise KernelUnavailable(
            f"the Triton kernel '{op}' cannot run: {reason}", f"Set {VARIABLE}=auto, or leave it unset."
        )
    return reason is None


class Op:
    """One operation, computed by its definition or by a Triton kernel.

    Calling it chooses: `use`, the environment variable `EASYANIMATE_KERNELS`, else Triton on a CUDA device that can
    run it. On a CPU that is always the definition, called directly. Where Triton is chosen, the call goes through
    `torch.ops.easyanimate.<name>`, whose gradient is that of the definition, recomputed; so `torch.compile` and
    `torch.export` see one node.

    Args:
        name: of the operator.
        schema: its arguments and results, without defaults, as `torch.library` writes them.
        reference: the definition, in differentiable torch.
        fake: empty results of the right shapes, types and strides.
        kernel: `module:function` of the Triton launcher; imported when first chosen.
        misfit: why the kernel does not take these arguments; `None` when it does.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        reference: Callable[..., Any],
        *,
        fake: Callable[..., Any],
        kernel: str,
        misfit: Callable[..., str | None],
    ) -> None:
        self.name = name
        self.reference = reference
        self.misfit = misfit
        self._fake = fake
        self._kernel = kernel
        self.registered = torch.library.custom_op(f"easyanimate::{name}", self._run, mutates_args=(), schema=schema)
        self.registered.register_fake(fake)
        self.registered.register_autograd(self._gradients, setup_context=_keep)

    def __call__(self, *arguments: Any) -> Any:
        """The results; positional arguments as in the schema, the first one a tensor on the device that computes.

        Raises:
            KernelUnavailable: Triton was asked for by name and cannot run.
        """
        first: Tensor = arguments[0]
        # The common case on a CPU costs two look-ups, so that tiny models do not notice.
        if first.device.type != "cuda" and _nobody_asked():
            return self.reference(*arguments)
        if _takes_triton(self.name, str(first.device), self.misfit(*arguments)):
            return self.registered(*arguments)
        return self.reference(*arguments)

    def _run(self, *arguments: Any) -> Any:
        device: torch.device = arguments[0].device
        if wanted() == "reference" or unavailable(str(device)) or self.misfit(*arguments):
            return _laid_out(self.reference(*arguments), self._fake(*arguments))
        module, _, function = self._kernel.partition(":")
        # Triton launches on the current device, which need not be where the tensors are.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            return getattr(import_module(module), function)(*arguments)

    def _gradients(self, ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        with torch.enable_grad():
            arguments = [
                next(saved).detach().requires_grad_(needed) if is_tensor else value
                for (is_tensor, value), needed in zip(ctx.given, ctx.needs_input_grad, strict=True)
            ]
            results = self.reference(*arguments)
            asked = [a for a, needed in zip(arguments, ctx.needs_input_grad, strict=True) if needed]
            found = iter(torch.autograd.grad(results, asked, outer, allow_unused=True))
        return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.given = [(True, None) if isinstance(value, Tensor) else (False, value) for value in inputs]


def _laid_out(results: Any, like: Any) -> Any:
    """Results in the strides that were promised."""
    if isinstance(results, Tensor):
        return results if results.stride() == like.stride() else like.copy_(results)
    return tuple(_laid_out(result, one) for result, one in zip(results, like, strict=True))
