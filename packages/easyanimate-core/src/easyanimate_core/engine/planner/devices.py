"""What devices can do: their memory, and about how fast they are with this kind of network.

Speeds are what eager networks of this kind reach, not what makers print: of an A100 and an A10 from the original's
tables, of an H100 from published runs of CogVideoX, which has blocks of the same size; of the others by comparison.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from easyanimate_core.errors import InvalidRequest
from easyanimate_core.sizes import GIB, parse_bytes
from easyanimate_core.validation import did_you_mean

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "Device", "find_device", "this_device"]

_TERA: Final = 1e12
_GIGA: Final = 1e9


@dataclass(frozen=True, slots=True)
class Device:
    """A place to compute.

    Attributes:
        name: as users write it.
        memory: bytes that can be used on it.
        matmul: FLOP per second of matrix products in 16-bit formats.
        attention: FLOP per second of attention with heads of 64.
        bandwidth: bytes per second of its memory.
        link: bytes per second from pinned main memory to it.
        kind: `cuda`, or `cpu` where main memory and the device's are one.
        host: bytes of main memory that are free; `None` when unknown.
        reserved: bytes that the runtime takes on the device before any tensor.
        spread: how wrong times may be, as a factor to both sides.
        called: what its maker calls it; empty where it is not at hand.
        rests_on: where its speeds are from.
    """

    name: str
    memory: int
    matmul: float
    attention: float
    bandwidth: float
    link: float
    kind: Literal["cuda", "cpu"] = "cuda"
    host: int | None = None
    reserved: int = GIB // 2
    spread: float = 1.3
    called: str = ""
    rests_on: str = "the table of devices"


def _gpu(name: str, gib: float, matmul: float, attention: float, bandwidth: float, link: float) -> Device:
    """Memory in GiB, speeds in TFLOP/s, memory in TB/s, link in GB/s."""
    return Device(name, round(gib * GIB), matmul * _TERA, attention * _TERA, bandwidth * _TERA, link * _GIGA)


DEVICES: Final = (
    _gpu("h200", 139.8, 650, 420, 3.4, 50),
    _gpu("h100", 79.1, 650, 420, 2.4, 50),
    _gpu("a100", 79.1, 220, 160, 1.5, 24),
    _gpu("a100-40gb", 39.4, 220, 160, 1.2, 24),
    _gpu("l40s", 44.4, 180, 160, 0.7, 24),
    _gpu("a10", 22.1, 65, 60, 0.5, 24),
    _gpu("rtx5090", 31.4, 200, 180, 1.4, 50),
    _gpu("rtx4090", 23.5, 150, 150, 0.85, 24),
    _gpu("rtx4080", 15.6, 90, 90, 0.6, 24),
    _gpu("rtx4070", 11.6, 55, 55, 0.42, 24),
    _gpu("rtx3090", 23.5, 65, 60, 0.8, 24),
    _gpu("rtx3060", 11.6, 24, 22, 0.3, 12),
    _gpu("v100", 15.7, 70, 40, 0.75, 12),
    _gpu("t4", 14.6, 30, 20, 0.25, 12),
)
"""GPUs that are known by name."""

_SIZED: Final = re.compile(r"\d+(\.\d+)?\s*gi?b", re.IGNORECASE)


def find_device(name: str = "auto") -> Device:
    """A device by name: one of `DEVICES`, `cpu`, `auto` for the one at hand, or a size such as `24GB`.

    Of a size only the memory is known: its speeds are those of an A10.

    Raises:
        InvalidRequest: nothing is called like that, or it is not here.
    """
    wanted = name.strip().casefold()
    if wanted in ("auto", "cpu") or wanted.startswith("cuda"):
        from easyanimate_core.pipeline.assemble import pick_device

        return this_device(pick_device(None if wanted == "auto" else wanted))
    known = {device.name: device for device in DEVICES}
    if wanted in known:
        return known[wanted]
    if _SIZED.fullmatch(wanted):
        # Of 24 GB on the box about 22.5 GiB can be used.
        return replace(known["a10"], name=wanted, memory=round(parse_bytes(wanted) * 0.985), spread=2.0)
    hint = did_you_mean(wanted, list(known)) or f"Known: auto, cpu, {', '.join(known)}, or a size such as 24GB."
    raise InvalidRequest(f"no device is called '{name}'", hint)


def this_device(device: torch.device) -> Device:
    """What is known about a device of this machine."""
    import torch

    from easyanimate_core.engine.record import device_name

    host, called = _free_host_memory(), device_name(device)
    if device.type != "cuda":
        threads = torch.get_num_threads()
        speed = 0.03 * _TERA * threads
        memory, link = host or 8 * GIB, 10 * _GIGA
        return Device("cpu", memory, speed, speed, link, link, "cpu", host, reserved=0, spread=4.0, called=called)
    free, _ = torch.cuda.mem_get_info(device)
    plain = re.sub(r"[^a-z0-9]", "", called.casefold())
    like = next((known for known in DEVICES if known.name.partition("-")[0] in plain), DEVICES[5])
    spread = like.spread if like.name.partition("-")[0] in plain else 3.0
    # What is free was measured after the runtime took its part.
    return replace(like, memory=free, host=host, reserved=0, spread=spread, called=called)


def _free_host_memory() -> int | None:
    """Bytes of main memory that a new process can have; `None` where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  (no such path elsewhere)
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None
