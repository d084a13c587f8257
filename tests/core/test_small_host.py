"""Streaming from disk: main memory never holds a model, neither while it is read nor while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from easyanimate_core.checkpoints.save import save_component
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.offload.options import StreamOptions
from easyanimate_core.offload.stream import Stream
from easyanimate_core.pipeline import load
from easyanimate_core.testing import write_checkpoint
from easyanimate_core.testing.tiny import TRANSFORMER_CONFIG

MIB = 1 << 20
ASKED: dict[str, Any] = {"prompt": "a", "size": "32x48", "frames": 5, "steps": 1, "seed": 1}
DISK = {"name": "stream", "source": "disk"}

WATCH = """
import gc, json, sys, threading, time
from easyanimate_core.offload.options import StreamOptions
from easyanimate_core.offload.stream import Stream
from easyanimate_core.pipeline import load

def held():  # by this process alone, without pages that are read from files and can be dropped again
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))

def watch():
    global most
    while True:
        most = max(most, held())
        time.sleep(0.001)

weights, warm, asked, cases = json.loads(sys.argv[1])
for runs, settings in cases:  # everything is imported, and has been done once
    pipe = load("nano", weights=warm, **settings)
    pipe(**asked) if runs else pipe.prepare()
del pipe
most = held()
threading.Thread(target=watch, daemon=True).start()
for runs, settings in cases:
    gc.collect()
    most = before = held()
    pipe = load("nano", weights=weights, **settings)
    pipe.prepare()
    found = [most - before]
    if runs:
        frames = pipe(**asked).frames
        found += [most - before, frames.double().sum().item()]
        del frames
    print(json.dumps(found))
    del pipe
"""

KILLED = """
import mmap, os, signal, sys
from easyanimate_core.pipeline import load

weights, folder = sys.argv[1:]
offload = {"name": "stream", "source": "disk", "folder": folder}
pipe = load("nano", weights=weights, dtype="bfloat16", storage="int8", offload=offload)
pipe.prepare()
with open("/proc/self/maps") as file:
    ranges = [line.split()[0].split("-") for line in file if folder in line]
print(sum(int(end, 16) - int(begin, 16) for begin, end in ranges))
modules = pipe.prepare().modules().values()
tensors = [tensor for module in modules if hasattr(module, "parameters") for tensor in module.parameters()]
pages = sum(-(-tensor.nbytes // mmap.PAGESIZE) for tensor in tensors if tensor.nbytes >= 4096)
print(pages * mmap.PAGESIZE, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose transformer has 12 blocks of 9.5 MiB: some 120 MB."""
    folder = write_checkpoint(tmp_path_factory.mktemp("large"), max_length=32)
    config = {**TRANSFORMER_CONFIG, "num_attention_heads": 20, "num_layers": 12, "mmdit_layers": 12}
    with torch.device("meta"):
        shapes = MMDiT(**config).state_dict()
    made = torch.Generator().manual_seed(0)
    numbers = 0.02 * torch.randn(max(value.numel() for value in shapes.values()), generator=made)
    state = {name: numbers[: value.numel()].view(value.shape).clone() for name, value in shapes.items()}
    save_component(folder / "transformer", {"_class_name": "EasyAnimateTransformer3DModel", **config}, state)
    return folder


def watched(weights: Path, warm: Path, *cases: tuple[bool, dict[str, Any]]) -> list[list[float]]:
    """By case: MiB at most while reading; if it runs, MiB at most in all, and the sum of what it made."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps([str(weights), str(warm), ASKED, cases])],
        # What is freed goes back to the system at once, so that only what is held counts.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [[sizes[0] / MIB, *(size / MIB for size in sizes[1:2]), *sizes[2:]] for sizes in found]


@pytest.mark.feature("C047")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's count of a process's own memory")
def test_main_memory_holds_a_ring_of_blocks_and_never_the_model(large: Path, tmp_path: Path) -> None:
    model = sum(path.stat().st_size for path in large.rglob("*.safetensors")) / MIB
    streamed, converted, narrow, whole = watched(
        large,
        write_checkpoint(tmp_path, max_length=32),
        (True, {"offload": DISK}),
        (False, {"offload": DISK, "dtype": "bfloat16"}),
        (False, {"offload": DISK, "storage": "int8"}),
        (True, {"offload": "stream"}),
    )
    assert model > 100
    assert whole[0] > model, "else this measures nothing"
    for (read, *_), how in ((streamed, "as stored"), (converted, "in another type"), (narrow, "in one byte each")):
        assert read < 0.2 * model, f"reading weights {how} takes about what the largest one takes"
    assert streamed[1] < 0.4 * model, "running takes a ring of two blocks, and what is computed"
    assert streamed[2] == whole[2]


def test_what_is_stored_as_it_is_computed_stays_in_the_checkpoint(tmp_path: Path) -> None:
    weights, folder = write_checkpoint(tmp_path / "tiny", max_length=32), tmp_path / "scratch"
    folder.mkdir()
    pipe = load("nano", weights=weights, offload={**DISK, "folder": str(folder)})
    want = load("nano", weights=weights, offload="resident")(**ASKED).frames
    assert torch.equal(pipe(**ASKED).frames, want)
    assert not [path for path in folder.rglob("*") if path.is_file()], "nothing was written"
    toolbox = pipe.prepare()
    toolbox.offload.detach()
    assert not list(folder.iterdir())
    again = Stream(StreamOptions(source="disk", budget=200_000, folder=str(folder)))
    again.attach(toolbox, torch.device("cpu"))
    assert not [path for path in folder.rglob("*") if path.is_file()], "nor when another placement takes over"
    again.detach()


@pytest.mark.feature("C047")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of what is mapped")
def test_files_are_gone_when_nobody_needs_them_and_when_the_process_is_killed(tmp_path: Path) -> None:
    weights, folder = write_checkpoint(tmp_path / "tiny", max_length=32), tmp_path / "scratch"
    folder.mkdir()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(weights), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    mapped, needed = map(int, killed.stdout.split())
    assert mapped == needed > 0, "what was converted and then narrowed is in one file, not in two"
    assert not [path for path in folder.rglob("*") if path.is_file()]
