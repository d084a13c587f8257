"""Convolutions of frames that were enlarged or repeated, done with less work: each beside the plain way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMagvit
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from easyanimate_core.kernels.op import use
from easyanimate_core.testing.tiny import VAE_CONFIG
from easyanimate_core.vae.magvit import Magvit
from easyanimate_core.vae.magvit.causal_conv import CausalConv3d, DoublingConv3d
from easyanimate_core.vae.magvit.passes import CausalPass, CentredPass, TimePass, repeated

Way = Callable[[TimePass, CausalConv3d, Tensor], Tensor]

PASSES: dict[str, tuple[Callable[[], TimePass], tuple[int, ...]]] = {
    "a pass that remembers": (CausalPass, (1, 2, 3)),
    "without a lone first frame": (lambda: CausalPass(lone_first=False), (2, 1)),
    "in one run": (lambda: CausalPass(remember=False), (4,)),
    "one picture": (lambda: CausalPass(remember=False), (1,)),
    "between zeros": (CentredPass, (3,)),
    "alone between zeros": (lambda: CentredPass(lone=True), (1,)),
}
EVERY_PASS = pytest.mark.parametrize(("begin", "runs"), PASSES.values(), ids=PASSES)


def plain(time: TimePass, conv: CausalConv3d, x: Tensor) -> Tensor:
    return time.convolve(conv, x)


def enlarged(time: TimePass, conv: CausalConv3d, x: Tensor) -> Tensor:
    return time.convolve(conv, F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))


def stretched(time: TimePass, conv: CausalConv3d, x: Tensor) -> Tensor:
    return time.convolve(conv, time.stretch(conv, x, repeated))


def paired(time: TimePass, conv: CausalConv3d, x: Tensor) -> Tensor:
    return time.convolve_repeated(conv, x)


def twins(kind: type[CausalConv3d], dtype: torch.dtype = torch.float64) -> tuple[CausalConv3d, CausalConv3d]:
    """A plain convolution and one of this kind with the same weights."""
    torch.manual_seed(0)
    one, other = CausalConv3d(16, 8), kind(16, 8)
    other.load_state_dict(one.state_dict())
    return one.to(dtype), other.to(dtype)


def outcome(way: Way, conv: CausalConv3d, time: TimePass, runs: tuple[Tensor, ...]) -> list[Tensor]:
    """Of runs one after the other: what comes out, and gradients of the first run, the weight and the bias."""
    made = [way(time, conv, run) for run in runs]
    return [*made, *torch.autograd.grad(torch.cat(made, dim=2).sin().sum(), (runs[0], conv.weight, conv.bias))]


def frames(runs: tuple[int, ...], height: int, width: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, 16, n, height, width, dtype=torch.float64, requires_grad=True) for n in runs)


@EVERY_PASS
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)], ids=str)
def test_frames_need_not_be_enlarged(
    begin: Callable[[], TimePass], runs: tuple[int, ...], size: tuple[int, int]
) -> None:
    """The same at borders and corners, for odd and even sides, and behind the frames of runs before."""
    one, other = twins(DoublingConv3d)
    given = frames(runs, *size)
    expected, found = outcome(enlarged, one, begin(), given), outcome(plain, other, begin(), given)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@EVERY_PASS
def test_frames_need_not_be_repeated(begin: Callable[[], TimePass], runs: tuple[int, ...]) -> None:
    """Where a pass leaves the first frame alone, it stays single."""
    conv, _ = twins(CausalConv3d)
    given = frames(runs, 3, 2)
    expected, found = outcome(stretched, conv, begin(), given), outcome(paired, conv, begin(), given)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_weights_are_read_at_every_use() -> None:
    """Sums of taps are not kept: after a training step, or other weights, they are those of the new ones."""
    one, other = twins(DoublingConv3d)
    (x,) = frames((2,), 3, 3)
    time = CausalPass(remember=False)
    for change in (lambda c: c.weight.add_(1), lambda c: setattr(c, "weight", torch.nn.Parameter(c.weight * 2))):
        plain(time, other, x), paired(time, one, x)
        with torch.no_grad():
            change(one), change(other)
        torch.testing.assert_close(plain(time, other, x), enlarged(time, one, x), atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(paired(time, one, x), stretched(time, one, x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("kind", "slow", "quick"), [(DoublingConv3d, enlarged, plain), (CausalConv3d, stretched, paired)]
)
def test_small_types_lose_little(kind: type[CausalConv3d], slow: Way, quick: Way, dtype: torch.dtype) -> None:
    """A sum of taps is rounded once more than its parts: at most twice the error of the plain way against float64."""
    one, other = twins(kind, dtype)
    x = F.silu(torch.randn(1, 16, 4, 8, 8)).to(dtype)
    errors = []
    with torch.no_grad():
        exact, _ = twins(kind)
        exact.load_state_dict(one.state_dict())
        expected = slow(CausalPass(remember=False), exact, x.double())
        for way, conv in ((slow, one), (quick, other)):
            errors.append(float((way(CausalPass(remember=False), conv, x) - expected).pow(2).mean()))
    assert errors[1] <= 4 * errors[0]


@pytest.mark.parametrize("kind", [CausalConv3d, DoublingConv3d])
def test_the_layout_of_the_weights_is_kept(kind: type[CausalConv3d]) -> None:
    _, conv = twins(kind, torch.float32)
    x = torch.randn(1, 16, 3, 4, 5)
    plain_out = conv.over(x, CausalPass(remember=False))
    last = conv.to(memory_format=torch.channels_last_3d).over(x, CausalPass(remember=False))
    assert last.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(last, plain_out)


class Names(TorchDispatchMode):
    """Which operations run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_small_inputs_are_convolved_by_onednn_on_a_cpu() -> None:
    """Torch's own choice is a loop that takes several times as long; autocast and other types leave it the choice."""
    _, conv = twins(CausalConv3d, torch.float32)
    x = torch.randn(1, 16, 3, 4, 4)

    def ran(x: Tensor) -> set[str]:
        with torch.no_grad(), Names() as names:
            conv.over(x, CausalPass(remember=False))
        return {name for name in names.seen if "convolution" in name}

    assert ran(x) == {"mkldnn_convolution"}
    with use("reference"):
        assert ran(x) == {"convolution"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv.over(x, CausalPass(remember=False)).dtype == torch.bfloat16
    conv.double()
    assert ran(x.double()) == {"convolution"}


def test_layers_can_be_compiled() -> None:
    _, conv = twins(DoublingConv3d, torch.float32)
    x = torch.randn(1, 16, 3, 4, 4)

    def run(x: Tensor) -> Tensor:
        return conv.over(x, CausalPass(remember=False))

    with torch.no_grad():
        torch.testing.assert_close(torch.compile(run, backend="eager", fullgraph=True)(x), run(x))


@pytest.mark.feature("C026")
def test_decoding_takes_four_fifths_of_the_products() -> None:
    """Of the released V5.1 VAE, beside diffusers', which enlarges and repeats before it convolves."""
    sizes = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32}
    config = {**VAE_CONFIG, **sizes}
    shared = ("latent_channels", "down_block_types", "up_block_types", *sizes)
    with torch.device("meta"):
        ours, port = Magvit(**config), AutoencoderKLMagvit(**{name: config[name] for name in shared})
        latents = torch.empty(1, 16, 3, 8, 12)
    counts = []
    for decode in (ours.decode_video, lambda z: port.decode(z).sample):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            decode(latents)
        counts.append(counter.get_total_flops())
    assert counts[0] <= 0.8 * counts[1]
