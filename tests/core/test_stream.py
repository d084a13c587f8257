"""The ring of streamed blocks: what is fetched when, and that copies hide behind the computation."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easyanimate_core.interfaces import Toolbox
from easyanimate_core.offload.lanes import ThreadLane
from easyanimate_core.offload.options import StreamOptions
from easyanimate_core.offload.ring import Ring, spread
from easyanimate_core.offload.stream import Stream, staying
from easyanimate_core.offload.timeline import simulate
from easyanimate_core.pipeline import load
from easyanimate_core.testing import write_checkpoint

GB = 1e9
BLOCK = round(0.453 * GB)
"""A block of V5.1 12B in bfloat16, without what depends on the timestep alone."""
PCIE4 = 24 * GB
"""What pinned copies reach on PCIe generation 4, in bytes per second."""


class Orders:
    """A lane that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.held: dict[int, int] = {}

    def fetch(self, block: int, slot: int) -> None:
        self.held[slot] = block
        self.told.append(("fetch", block))

    def await_slot(self, slot: int) -> None:
        self.told.append(("run", self.held[slot]))

    def used(self, slot: int) -> None:
        self.told.append(("done", self.held[slot]))


def walked(order: list[int], tracks: list[list[int]], slots: int = 2, *, prime: bool = True) -> list[str]:
    lane = Orders()
    ring = Ring(tracks, slots, lane)
    if prime:
        ring.prime(tracks[0][0])
    for block in order:
        slot = ring.enter(block)
        assert lane.held[slot] == block
        ring.leave(block)
    return [f"{what} {block}" for what, block in lane.told]


@pytest.mark.feature("C047")
def test_the_next_block_is_fetched_as_soon_as_a_slot_is_free() -> None:
    assert walked([0, 1, 2, 0, 1], [[0, 1, 2]]) == [
        "fetch 0", "fetch 1",
        "run 0", "done 0", "fetch 2",
        "run 1", "done 1", "fetch 0",
        "run 2", "done 2", "fetch 1",
        "run 0", "done 0", "fetch 2",
        "run 1", "done 1", "fetch 0",
    ]  # fmt: skip


def test_blocks_that_all_fit_are_fetched_once() -> None:
    told = walked([0, 1, 0, 1], [[0, 1]])
    assert [order for order in told if order.startswith("fetch")] == ["fetch 0", "fetch 1"]


def test_a_block_that_nobody_expected_is_fetched_when_it_is_wanted() -> None:
    told = walked([0, 3, 1, 2], [[0, 1, 2], [3]], prime=False)
    assert [order for order in told if order.startswith("run")] == ["run 0", "run 3", "run 1", "run 2"]


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_any_order_is_right(slots: int) -> None:
    order = torch.randint(0, 7, (60,)).tolist()
    walked(order, [[0, 1, 2, 3], [4, 5, 6]], slots, prime=False)


@pytest.mark.feature("C047")
def test_copies_cost_nothing_while_a_block_computes_longer_than_it_takes_to_fetch() -> None:
    # 48 blocks; 384x672x49 on an H100 takes about 20 ms a block, its copy 18.9 ms.
    line = simulate([BLOCK] * 48, [0.020] * 48, bandwidth=PCIE4, passes=4)
    assert line.slowdown < 1.01
    assert line.moved == 4 * 48 * BLOCK + 2 * BLOCK, "every block once a pass, and two ahead of the next one"
    slow = simulate([BLOCK] * 48, [0.010] * 48, bandwidth=PCIE4, passes=4)
    assert slow.seconds == pytest.approx(4 * 48 * BLOCK / PCIE4, rel=0.02), "else the copies decide"


@pytest.mark.feature("C047")
def test_copying_and_computing_overlap() -> None:
    line = simulate([BLOCK] * 6, [0.020] * 6, bandwidth=PCIE4, passes=2)
    copies = [span for span in line.spans if span.kind == "copy"]
    computes = [span for span in line.spans if span.kind == "compute"]
    for span in copies[2:-2]:
        assert any(other.begin < span.end and span.begin < other.end for other in computes)
    for before, after in itertools.pairwise(computes):
        assert after.begin == pytest.approx(before.end, abs=1e-9), "the computation never waits"
    for block, span in enumerate(computes):
        arrived = [copy.end for copy in copies if copy.block == block % 6 and copy.end <= span.begin + 1e-9]
        assert arrived, "no block runs before it has arrived"


@pytest.mark.feature("C047")
def test_blocks_that_stay_give_the_others_time() -> None:
    everything = simulate([BLOCK] * 48, [0.010] * 48, bandwidth=PCIE4, passes=4)
    half = simulate([BLOCK] * 48, [0.010] * 48, bandwidth=PCIE4, passes=4, stay=spread(48, 24))
    bunched = simulate([BLOCK] * 48, [0.010] * 48, bandwidth=PCIE4, passes=4, stay=range(24))
    assert everything.slowdown > 1.8
    assert half.slowdown < 1.02
    assert bunched.slowdown > 1.3, "that they are evenly spread is what helps"


def test_what_stays_is_evenly_spread_and_fits() -> None:
    assert spread(8, 4) == (1, 3, 5, 7)
    assert spread(48, 3) == (8, 24, 40)
    options = StreamOptions(budget="8GiB")  # type: ignore[arg-type]
    stay = staying([491 << 20] * 48, 100 << 20, options)
    assert 0 < len(stay) < 48
    used = (100 << 20) + (2 + len(stay)) * (491 << 20)
    assert used <= 8 << 30 < used + (491 << 20)
    assert staying([10] * 4, 5, StreamOptions(budget=45)) == frozenset(range(4))
    assert staying([10] * 4, 5, StreamOptions(budget=44)) == frozenset({2})
    assert staying([10] * 4, 5, StreamOptions(budget=1)) == frozenset()


class Watched(ThreadLane):
    """A real lane that also writes down its orders."""

    def __init__(self, homes: Any, slots: int) -> None:
        super().__init__(homes, max(home.pack.nbytes for home in homes), slots)
        self.orders = Orders()

    def fetch(self, block: int, slot: int) -> None:
        self.orders.fetch(block, slot)
        super().fetch(block, slot)

    def await_slot(self, slot: int) -> None:
        self.orders.await_slot(slot)
        super().await_slot(slot)

    def used(self, slot: int) -> None:
        self.orders.used(slot)
        super().used(slot)


class Deep(nn.Module):
    """Six blocks of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16 * (i + 1)), nn.Linear(16 * (i + 1), 16)) for i in range(6)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.feature("C047")
def test_the_engine_gives_the_orders_that_the_simulation_counts(tmp_path: Path) -> None:
    toolbox = load("nano", weights=write_checkpoint(tmp_path), offload="resident").prepare()
    net, lanes = Deep(), []

    def lane(homes: Any, slots: int, device: torch.device) -> Watched:
        lanes.append(Watched(homes, slots))
        return lanes[-1]

    strategy = Stream(StreamOptions(), lanes=lane)
    want = net(torch.ones(2, 16))
    only: Toolbox = replace(toolbox, text_encoders=(), denoiser=net, vae=nn.Identity())  # type: ignore[arg-type]
    strategy.attach(only, torch.device("cpu"))
    with strategy.using("denoiser"):
        for _ in range(3):
            assert torch.equal(net(torch.ones(2, 16)), want)
    told = [f"{what} {block}" for what, block in lanes[0].orders.told]
    assert told == walked([0, 1, 2, 3, 4, 5] * 3, [[0, 1, 2, 3, 4, 5]])
    strategy.detach()
