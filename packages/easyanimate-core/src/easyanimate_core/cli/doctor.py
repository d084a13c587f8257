"""`easyanimate doctor`: what works on this machine, and why not the rest."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import click

from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.errors import EasyAnimateError
from easyanimate_core.interfaces import AttentionCall
from easyanimate_core.plugins import active
from easyanimate_core.presets import all_presets
from easyanimate_core.sizes import written_bytes
from easyanimate_core.slots import ATTENTION

__all__ = ["Finding", "command"]

_NEEDED: Final = (
    "easyanimate-core", "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "av", "pydantic",
)  # fmt: skip
_OPTIONAL: Final = {
    "triton": "fused kernels; pip install 'easyanimate-core[triton]'",
    "easyanimate-control": "control, camera and reference conditions; pip install easyanimate-control",
    "easyanimate-train": "training; pip install easyanimate-train",
    "easyanimate-ui": "browser interface and HTTP API; pip install easyanimate-ui",
}
_ENCODERS: Final = {"libx264": ".mp4", "gif": ".gif"}
# What a V5.1 model asks for at its default size (49 frames of 384×672, text included).
_HEAD_DIM, _LENGTH = 64, 13360


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: `versions`, `devices`, `memory`, `attention`, `kernels`, `media`, `models` or `plugins`.
        name: what it is.
        works: whether it can be used.
        said: version or capability when it works, else the reason and a remedy.
    """

    area: str
    name: str
    works: bool
    said: str


@click.command("doctor", short_help="say what works on this machine, and why not the rest")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(as_json: bool) -> None:
    """Say what works on this machine, and why not the rest. Changes nothing; loads no weights."""
    findings = [*_versions(), *_devices(), *_memory(), *_attention(), *_kernels(), *_media(), *_models(), *_plugins()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    print_table(("AREA", "NAME", "WORKS", ""), [(f.area, f.name, "yes" if f.works else "no", f.said) for f in findings])


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "python", True, f"{platform.python_version()} on {platform.platform()}")
    for name in _NEEDED:
        try:
            yield Finding("versions", name, True, version(name))
        except PackageNotFoundError:
            yield Finding("versions", name, False, f"not installed; pip install {name}")
    for name, purpose in _OPTIONAL.items():
        try:
            yield Finding("versions", name, True, version(name))
        except PackageNotFoundError:
            yield Finding("versions", name, False, f"not installed: {purpose}")


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("devices", "torch", False, f"does not import: {error}")
        return
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    yield Finding("devices", "cpu", True, f"{threads}, {_memory_gb():.0f} GB memory")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            said = f"{card.name}, {card.total_memory / 1e9:.0f} GB, compute capability {card.major}.{card.minor}"
            yield Finding("devices", f"cuda:{index}", True, said)
    elif torch.version.cuda is None and torch.version.hip is None:
        yield Finding("devices", "cuda", False, f"torch {torch.__version__} was built without CUDA")
    else:
        yield Finding("devices", "cuda", False, "torch was built with CUDA, but finds no GPU or no driver (nvidia-smi)")
    if sys.platform == "darwin":
        found = torch.backends.mps.is_available()
        yield Finding("devices", "mps", found, "Apple GPU" if found else "torch finds no Apple GPU")


def _memory_gb() -> float:
    """Physical memory in gigabytes (10⁹ bytes); 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return 0.0


def _memory() -> Iterator[Finding]:
    """Where weights can wait, and what plans rest on."""
    try:
        from easyanimate_core.engine.planner import Past, find_device
    except ImportError:  # torch is missing, which is said elsewhere
        return
    free = find_device("cpu").host
    yield Finding("memory", "main", free is not None, f"{written_bytes(free)} free" if free else "not told here")
    folder = tempfile.gettempdir()
    room = shutil.disk_usage(folder).free
    yield Finding("memory", "files", True, f"{written_bytes(room)} free in '{folder}', for --offload stream from disk")
    runs = len(Past().runs())
    said = f"{runs} kept; plans of the same model here rest on them" if runs else "none: times are from a table"
    yield Finding("memory", "past runs", True, said)


def _attention() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return
    device, dtype = ("cuda", "bfloat16") if torch.cuda.is_available() else ("cpu", "float32")
    from easyanimate_core.kernels.attention.auto import Verdicts

    call = AttentionCall(head_dim=_HEAD_DIM, length=_LENGTH, dtype=dtype, device=device)
    registry = active().registries[ATTENTION]
    for entry in registry:
        try:
            reason = registry.create(entry.qualified).supports(call)
        except EasyAnimateError as error:
            reason = f"{error.message}; {error.hint}"
        yield Finding("attention", entry.name, reason is None, reason or f"{entry.summary} ({device}, {dtype})")
    for key, name in Verdicts().all().items():
        yield Finding("attention", f"auto: {name}", True, f"measured on {key}")


def _kernels() -> Iterator[Finding]:
    """How each op is computed here."""
    try:
        import torch
    except ImportError:
        return
    from easyanimate_core.kernels import NAMES, unavailable, wanted

    try:
        way = wanted()
    except EasyAnimateError as error:
        yield Finding("kernels", "EASYANIMATE_KERNELS", False, f"{error.message}; {error.hint}")
        return
    reason = "asked for by EASYANIMATE_KERNELS" if way == "reference" else None
    reason = reason or unavailable("cuda:0" if torch.cuda.is_available() else "cpu")
    for name in NAMES:
        yield Finding("kernels", name, reason is None, "Triton" if reason is None else f"plain PyTorch: {reason}")


def _media() -> Iterator[Finding]:
    try:
        import av
        from av.codec.codec import UnknownCodecError
    except ImportError as error:
        yield Finding("media", "av", False, f"does not import: {error}")
        return
    ffmpeg = ".".join(str(part) for part in av.library_versions["libavcodec"])
    for name, suffix in _ENCODERS.items():
        try:
            av.Codec(name, "w")
        except UnknownCodecError:
            yield Finding("media", suffix, False, f"FFmpeg has no encoder '{name}'; pip install -U av")
        else:
            yield Finding("media", suffix, True, f"encoder {name}, libavcodec {ffmpeg}")


def _models() -> Iterator[Finding]:
    """Models whose weights come with a package; the others are fetched or given when used."""
    for preset in all_presets():
        if preset.bundled is None:
            continue
        try:
            path = preset.bundled_path()
        except EasyAnimateError as error:
            yield Finding("models", preset.name, False, f"{error.message}; {error.hint}")
        else:
            yield Finding("models", preset.name, True, f"weights at {path}")


def _plugins() -> Iterator[Finding]:
    for plugin in active().plugins:
        said = f"{plugin.distribution} {plugin.version}, {len(plugin.entries)} components"
        if plugin.parked:
            said += f", {len(plugin.parked)} of them waiting for another plugin to open their slot"
        works = plugin.state == "loaded"
        yield Finding("plugins", plugin.name, works, said if works else " ".join(plugin.reason.split()))
