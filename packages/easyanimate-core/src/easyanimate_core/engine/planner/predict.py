"""What one placement of one model takes for one request on one device.

```
device memory, in each stage = runtime + weights there + what the stage's computation lets live + what waits for later
seconds = reading + text + steps · step + decoding
step = products / speed + attention / speed + other bytes / bandwidth, or the copies of weights if they take longer
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from easyanimate_core.data import Geometry, TextEmbedding
from easyanimate_core.engine.planner.counting import Counts, count
from easyanimate_core.engine.planner.sketch import Uncountable
from easyanimate_core.interfaces import Foretells, OffloadStrategy, PreparesSteps, Storage, SupportsTiling
from easyanimate_core.offload.timeline import simulate
from easyanimate_core.placing import Footprint, KeepsInFiles
from easyanimate_core.sizes import GIB, written_bytes

if TYPE_CHECKING:
    from torch import nn

    from easyanimate_core.engine.planner.devices import Device
    from easyanimate_core.engine.planner.sketch import Sketch
    from easyanimate_core.schema import Choice

__all__ = ["Interval", "Prediction", "Work", "in_tiles", "one_by_one", "predict", "work_of"]

_FRAGMENTS: Final = 1.1  # what an allocator takes beyond what lives
_PROCESS: Final = round(0.7 * GIB)  # Python, torch and transformers
_CUDA_PROCESS: Final = round(2.5 * GIB)
_TEXT_LIVES: Final = 200  # bytes that live per token and width while a text encoder runs, measured on Qwen2-VL's shapes
_READING: Final = (0.5e9, 5e9)  # bytes per second from disks of today, slow and fast
_LENGTH: Final = 256  # text tokens of an encoder that does not say how long its prompts are
_LARGE: Final = 1 << 50  # bytes that nothing reaches
_DECODED: Final = 3  # latent frames that are counted; all later ones are like the last


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`."""

    low: float
    high: float

    def __add__(self, other: Interval) -> Interval:
        """Ends added."""
        return Interval(self.low + other.low, self.high + other.high)

    def as_json(self) -> list[float]:
        """Both ends."""
        return [round(self.low, 3), round(self.high, 3)]


@dataclass(frozen=True, slots=True)
class Work:
    """What a request computes, whatever the placement.

    Attributes:
        steps: of denoising.
        step: of one step, as fused kernels and as plain operations.
        decode: of the whole clip.
        tiled: frames are decoded in tiles.
        apart: both halves of guidance run one after the other.
        prepared: bytes of what a denoiser that stays whole computes for all steps before the first.
        text: FLOP of the text encoder.
        text_lives: bytes that live while it runs.
        waiting: bytes of latents, embeddings and conditions that wait on the device.
        tokens: bytes of the video's tokens.
        cached: bytes that step caches keep.
    """

    steps: int
    step: tuple[Counts, Counts]
    decode: Counts
    text: int
    text_lives: int
    waiting: int
    tokens: int = 0
    cached: int = 0
    prepared: int = 0
    tiled: bool = False
    apart: bool = False

    def lives(self) -> int:
        """The most that any stage's computation lets live."""
        return max(self.step[1].peak + self.cached, self.decode.peak, self.text_lives)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a placement takes.

    Attributes:
        offload: where weights are.
        storage: what they are kept as.
        tiled: frames are decoded in tiles.
        apart: both halves of guidance run one after the other.
        vram: bytes on the device, at most.
        ram: bytes of main memory, at most, beside the device.
        disk: bytes that the strategy writes.
        seconds: of the whole run, reading included.
        step: seconds of one step.
        stages: bytes on the device by stage, at most.
        short: why it does not fit; empty when it does.
        exact: the result is bit by bit what weights in their own type give, on the same kernels.
    """

    offload: Choice[OffloadStrategy]
    storage: Choice[Storage]
    tiled: bool
    apart: bool
    vram: Interval
    ram: Interval
    disk: int
    seconds: Interval
    step: Interval
    stages: Mapping[str, float] = field(default_factory=dict)
    short: str = ""
    exact: bool = True

    @property
    def name(self) -> str:
        """Offload and storage in words."""
        said = self.offload.given
        words = [f"{key} {written_bytes(value) if key == 'budget' else value}" for key, value in said.items()]
        return " ".join([self.offload.name, *([f"({', '.join(words)})"] if words else []), "+", self.storage.name])

    def as_json(self) -> dict[str, Any]:
        """For machines: bytes and seconds."""
        return {
            "offload": self.offload.as_json(),
            "storage": self.storage.as_json(),
            "tiled": self.tiled,
            "apart": self.apart,
            "vram_bytes": self.vram.as_json(),
            "ram_bytes": self.ram.as_json(),
            "disk_bytes": self.disk,
            "seconds": self.seconds.as_json(),
            "seconds_per_step": self.step.as_json(),
            "stages": {name: round(value) for name, value in self.stages.items()},
            "fits": not self.short,
            "reason": self.short,
            "exact": self.exact,
        }


def work_of(model: Sketch, geometry: Geometry, steps: int, *, guided: bool, dtype: torch.dtype) -> Work:
    """Count what a request computes.

    Args:
        model: on the meta device.
        geometry: of the video, as the VAE rounds it.
        steps: of denoising.
        guided: both halves are computed, as one batch.
        dtype: to compute in.

    Raises:
        Uncountable: a third party's denoiser or VAE does not run without weights.
    """
    denoiser: Any = model.modules["denoiser"]
    vae: Any = model.modules["vae"]
    shape = vae.compression.latent_shape(geometry)
    halves = (2 if guided else 1) * geometry.batch
    latents = torch.empty((halves, *shape[1:]), dtype=dtype, device="meta")
    encoders = [module for role, module in model.modules.items() if role.startswith("text")]
    lengths = [int(getattr(module, "max_length", None) or _LENGTH) for module in encoders]
    text = _embeddings(denoiser, halves, lengths, dtype)
    wired = _wired(denoiser, latents)
    when = torch.empty(halves, dtype=dtype, device="meta")

    # As in the loop: what a denoiser computes before it for all steps is no part of one.
    with torch.no_grad():
        prepared = denoiser.prepared(when[:1], text, dtype) if isinstance(denoiser, PreparesSteps) else None
    asked: Any = denoiser if prepared is None else prepared[0]

    def step() -> None:
        asked.head(asked.trunk(asked.embed(latents, when, text, wired)))

    both = _counted(denoiser, step, denoiser, fused=True), _counted(denoiser, step, denoiser)
    conditions = sum(value.numel() * value.element_size() for value in wired.values())
    held = 4 * latents.numel() * latents.element_size() + conditions
    embedded = sum(part.states.numel() * part.states.element_size() for part in text)
    return Work(
        steps=steps,
        step=both,
        decode=_decoding(vae, shape, dtype),
        text=2
        * (2 if guided else 1)
        * sum(tokens * p.numel() for tokens, module in zip(lengths, encoders, strict=True) for p in _used(module)),
        text_lives=_TEXT_LIVES * max(part.states.shape[1] * part.states.shape[2] for part in text),
        waiting=held + embedded,
        tokens=denoiser.embed(latents, when, text, wired).video.nbytes,
        prepared=0 if prepared is None else _prepared(denoiser, text, dtype, steps),
    )


def _prepared(denoiser: Any, text: Sequence[TextEmbedding], dtype: torch.dtype, steps: int) -> int:
    """Bytes of what is computed for all steps before the first: some for each step, some for all of them."""

    def held(times: int) -> int:
        when = torch.empty(times, dtype=dtype, device="meta")
        # What is larger than all that lives meanwhile puts the peak to the end, where only the result is left.
        last = partial(torch.empty, _LARGE, dtype=torch.uint8, device="meta")
        return _counted(denoiser, lambda: (denoiser.prepared(when, text, dtype), last())).peak - _LARGE

    one, two = held(1), held(2)
    return one + (steps - 1) * (two - one)


def _counted(whose: nn.Module, run: Callable[[], Any], *modules: nn.Module, fused: bool = False) -> Counts:
    """What a component's run takes. That ours run without weights is tested; of others it is not expected."""
    try:
        return count(run, *modules, fused=fused)
    except (NotImplementedError, RuntimeError) as error:
        if type(whose).__module__.partition(".")[0] == __name__.partition(".")[0]:
            raise
        first = str(error).partition("\n")[0]
        raise Uncountable(f"'{type(whose).__name__}', which does not run without weights: {first}") from error


def _config(denoiser: Any) -> Mapping[str, Any]:
    """What a denoiser says of its sizes."""
    config = getattr(denoiser, "config", None)
    if not isinstance(config, Mapping) or "in_channels" not in config:
        raise Uncountable(f"'{type(denoiser).__name__}', whose 'config' does not say its 'in_channels'")
    return config


def _used(module: nn.Module) -> list[torch.Tensor]:
    """Weights that every token meets: all but tables that are looked up."""
    tables = {id(p) for m in module.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    return [p for p in module.parameters() if id(p) not in tables]


def _embeddings(denoiser: Any, batch: int, lengths: Sequence[int], dtype: torch.dtype) -> list[TextEmbedding]:
    """Texts of the widths that a denoiser takes, as its config says: of one encoder, or of two."""
    first = ("text_embed_dim", "caption_channels", "cross_attention_dim")
    second = ("text_embed_dim_t5", "cross_attention_dim_t5")
    found, config = [], _config(denoiser)
    for length, keys in zip(lengths, (first, second), strict=False):
        width = next((int(config[key]) for key in keys if config.get(key)), 0)
        states = torch.empty(batch, length, width, dtype=dtype, device="meta")
        found.append(TextEmbedding(states, torch.empty(batch, length, dtype=torch.long, device="meta")))
    return found


def _wired(denoiser: Any, latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """Conditions for all input channels after the latents."""
    more = int(_config(denoiser)["in_channels"]) - latents.shape[1]
    if more <= 0:
        return {}
    batch, _, f, h, w = latents.shape
    return {"conditions": latents.new_empty((batch, more, f, h, w))}


def _decoding(vae: Any, shape: tuple[int, ...], dtype: torch.dtype, *, edge: int | None = None) -> Counts:
    """Decoding some latent frames, or with an `edge` a corner of them, brought up to all."""
    batch, channels, f, h, w = shape
    corner = (min(h, edge), min(w, edge)) if edge is not None else (h, w)
    some = torch.empty((batch, channels, min(f, _DECODED), *corner), dtype=dtype, device="meta")

    def decode() -> None:
        for _ in vae.decode_stream(some):
            pass

    counted, share = _counted(vae, decode), f * h * w / some[0, 0].numel()
    # What is joined of the tiles, twice: three channels of every pixel of a run of frames.
    joined = 0 if edge is None else 2 * 3 * 4 * batch * (h * w - corner[0] * corner[1]) * 64 * dtype.itemsize
    matmul, moved = round(counted.matmul * share), round(counted.moved * share)
    return replace(counted, peak=counted.peak + joined, matmul=matmul, moved=moved)


def one_by_one(work: Work) -> Work:
    """The same work with both halves of guidance one after the other: what a step lets live is linear in its batch."""
    fused, plain = (replace(c, peak=c.peak // 2, kernels=2 * c.kernels, products=2 * c.products) for c in work.step)
    return replace(work, step=(fused, plain), apart=True)


def in_tiles(work: Work, model: Sketch, geometry: Geometry, dtype: torch.dtype) -> Work:
    """The same work with frames decoded in tiles; as it was where the VAE has none."""
    vae: Any = model.modules["vae"]
    if not isinstance(vae, SupportsTiling):
        return work
    shape = model.modules["vae"].compression.latent_shape(geometry)  # type: ignore[operator, union-attr]
    vae.set_tiling(True)
    # A corner of two tiles by two has every kind of tile in it.
    tile = getattr(vae, "tile_latent_size", None)
    decode = _decoding(vae, shape, dtype, edge=None if tile is None else tile + tile // 2)
    vae.set_tiling(False)
    return replace(work, decode=decode, tiled=True)


def predict(
    model: Sketch,
    work: Work,
    device: Device,
    offload: Choice[OffloadStrategy],
    storage: Choice[Storage],
    *,
    budget: int | None = None,
    reading: float = 0,
) -> Prediction:
    """What a placement takes.

    Args:
        model: in the storage of the choice.
        work: of the request.
        device: where.
        offload: the placement.
        storage: of `model`.
        budget: bytes of the device's memory that may be used; all of it by default.
        reading: bytes of the checkpoint's files.
    """
    strategy: Any = offload.create()
    feet = {role: _foot(strategy, role, module) for role, module in model.modules.items()}
    stages: dict[str, Interval] = {}
    # Where blocks come and go, nothing is prepared.
    kept = work.cached + (0 if feet["denoiser"].moved else work.prepared)
    for stage, role, low, high in (
        ("encode_text", "text", work.text_lives, work.text_lives),
        ("denoise", "denoiser", work.step[0].peak + kept, work.step[1].peak + kept),
        ("decode", "vae", work.decode.peak, work.decode.peak),
    ):
        there = (
            device.reserved
            + work.waiting
            + sum(foot.used if name.split("_")[0] == role else foot.idle for name, foot in feet.items())
        )
        stages[stage] = Interval(there + low, there + max(low, high) * _FRAGMENTS)
    vram = Interval(max(s.low for s in stages.values()), max(s.high for s in stages.values()))
    homes = sum(foot.host for foot in feet.values())
    # Of what waits in files, one weight at a time is looked at and converted.
    in_files = isinstance(strategy, KeepsInFiles) and not homes
    loading = 2 * model.largest if in_files else model.loading
    process = _PROCESS if device.kind == "cpu" else _CUDA_PROCESS
    # Pinned buffers are rounded up to powers of two, by a quarter at most; see `offload.homes`.
    ram = Interval(process + homes, process + max(loading * 1.05, homes * (1.05 if device.kind == "cpu" else 1.25)))
    if device.kind == "cpu":
        ram = Interval(ram.low + vram.low, max(ram.high, process + homes + vram.high))
    disk = sum(foot.disk for foot in feet.values())
    seconds, step = _seconds(work, device, feet, max(reading, 1))
    limit = min(device.memory, budget or device.memory)
    return Prediction(
        offload, storage, work.tiled, work.apart, vram, ram, disk, seconds, step,
        stages={name: stage.high for name, stage in stages.items()},
        short=_short(device, limit, stages, ram),
        exact=storage.name in ("native", "auto"),
    )  # fmt: skip


def _foot(strategy: Any, role: str, module: nn.Module) -> Footprint:
    """What a strategy says; of one that does not foretell, that everything is on the device."""
    if isinstance(strategy, Foretells):
        return strategy.footprint(role, module)
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    return Footprint(idle=size, used=size)


def _short(device: Device, limit: int, stages: Mapping[str, Interval], ram: Interval) -> str:
    if device.kind == "cuda" or limit < device.memory:
        stage = max(stages, key=lambda name: stages[name].high)
        if (most := stages[stage].high) > limit:
            return f"'{stage}' needs {written_bytes(most)} of {written_bytes(limit)} on '{device.name}'"
    if device.host is not None and ram.high > device.host:
        return f"it needs {written_bytes(ram.high)} of main memory, {written_bytes(device.host)} are free"
    return ""


def _seconds(work: Work, device: Device, feet: Mapping[str, Footprint], reading: float) -> tuple[Interval, Interval]:
    """Of the run, and of one step."""

    def alone(counted: Counts) -> float:
        return counted.matmul / device.matmul + counted.attention / device.attention + counted.moved / device.bandwidth

    foot = feet["denoiser"]
    passes = 2 if work.apart else 1
    # Fused kernels are for GPUs.
    likely = work.step if device.kind == "cuda" else (work.step[1], work.step[1])
    low, high = (passes * _with_copies(alone(counted) / passes, foot, device) for counted in likely)
    step = Interval(low / device.spread, high * device.spread)
    text = [foot for role, foot in feet.items() if role.startswith("text")]
    once = work.text / device.matmul + sum(_with_copies(0.0, foot, device) for foot in text) + alone(work.decode)
    once += sum(foot.used - foot.idle for foot in feet.values()) / device.link
    run = Interval(step.low * work.steps + once / device.spread, step.high * work.steps + once * device.spread)
    return run + Interval(reading / _READING[1], reading / _READING[0]), step


def _with_copies(computing: float, foot: Footprint, device: Device) -> float:
    """Seconds of a pass whose weights come piece by piece."""
    if not foot.moved:
        return computing
    size, share = foot.moved / foot.pieces, computing / foot.pieces
    if not foot.ahead:
        # Every copy waits for the computation, and the other way round; small ones hardly reach the link's speed.
        return computing + foot.moved / (0.7 * device.link) + foot.pieces * 50e-6
    passes = 3
    line = simulate([round(size)] * foot.pieces, [share] * foot.pieces, bandwidth=device.link, passes=passes)
    return line.seconds / passes
