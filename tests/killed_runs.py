"""A parent that has imported torch once and forks children that run jobs, and kills them at random moments.

    python killed_runs.py WEIGHTS FOLDER KILLS

prints, as JSON, what became of every job. Run in a process of its own: forking pytest would copy its threads.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from easyanimate_core.engine import Engine, Job, JobStore, read_manifest
from easyanimate_core.events import Event, EventBus, Step
from easyanimate_core.request import GenerationRequest

STEPS = 100


def submit(store: JobStore, weights: str, output: Path) -> Job:
    request = GenerationRequest(
        prompt="a red circle moving right",
        weights=weights,
        size=(32, 48),  # type: ignore[arg-type]
        frames=17,
        steps=STEPS,
        seed=5,
    )
    return Engine(store).submit(request, output=str(output), snapshot_seconds=0, snapshot_every=2)


def child(store: JobStore, number: int, log: Path) -> int:
    """Fork a process that runs a job; returns its pid. The index of its first step goes to the log."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        first: list[int] = []

        def note(event: Event) -> None:
            if isinstance(event, Step) and not first:
                first.append(event.index)
                with log.open("a") as file:
                    file.write(f"{event.index}\n")

        Engine(store).run(number, events=EventBus(note))
        status = 0
    finally:
        os._exit(status)


def killed_after(pid: int, seconds: float) -> bool:
    """Wait, then kill; returns whether there was still something to kill."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def main(weights: str, folder: Path, kills: int) -> dict[str, Any]:
    store, chance, log = JobStore(folder / "home"), random.Random(0), folder / "first_steps"
    # Here, so that children inherit what libraries import when they are first used.
    Engine(store).run(submit(store, weights, folder / "first.mp4").id)
    whole = submit(store, weights, folder / "whole.mp4")
    began = time.monotonic()
    os.waitpid(child(store, whole.id, folder / "nowhere"), 0)
    seconds = time.monotonic() - began
    states, jobs, done = [], [], 0
    while done < kills:
        job = submit(store, weights, folder / f"clip{len(jobs)}" / "clip.mp4")
        while store.get(job.id).state != "done":
            # The last job is left alone once there were enough kills.
            patience = chance.uniform(0, seconds) if done < kills else 60.0
            if killed_after(child(store, job.id, log), patience):
                done += 1
                states.append(store.get(job.id).state)
        jobs.append(job.id)
    return {
        "reference": read_manifest(folder / "whole.mp4").model_dump(mode="json"),
        "made": [read_manifest(store.get(number).outputs[0]).model_dump(mode="json") for number in jobs],
        "files": [sorted(p.name for p in (folder / f"clip{i}").iterdir()) for i in range(len(jobs))],
        "states": states,
        "attempts": [store.get(number).attempts for number in jobs],
        "first_steps": [int(line) for line in log.read_text().split()],
        "seconds": seconds,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)  # a pool of threads would not survive a fork
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
