"""The planner: counts against known numbers, predictions against what runs measure, the original's tables."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from easyanimate_core.cli.main import run as easyanimate
from easyanimate_core.data import Geometry
from easyanimate_core.denoisers.mmdit import MMDiT
from easyanimate_core.engine.planner import RunPlan, find_device, plan_run
from easyanimate_core.engine.planner.choose import Counted
from easyanimate_core.engine.planner.counting import count
from easyanimate_core.engine.planner.predict import work_of
from easyanimate_core.engine.planner.releases import Configs
from easyanimate_core.engine.planner.sketch import folder_of, sketch
from easyanimate_core.errors import InvalidRequest, OutOfMemory
from easyanimate_core.events import EventBus, Notice
from easyanimate_core.pipeline import load
from easyanimate_core.plugins import Host, hookimpl, using
from easyanimate_core.presets import all_presets, find_preset
from easyanimate_core.registry import Registrar
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import Choice
from easyanimate_core.sizes import GIB, parse_bytes, written_bytes
from easyanimate_core.slots import STORAGE
from easyanimate_core.storage.native import Native
from easyanimate_core.testing import write_checkpoint
from recorder import Recorder

V3_CELLS = ("384x672x72", "384x672x144", "576x1008x72", "576x1008x144", "720x1280x72", "720x1280x144")
CELLS = ("384x672x25", "384x672x49", "576x1008x25", "576x1008x49", "768x1344x25", "768x1344x49")
# Which memory mode of the original runs which cell: Model, Qfloat8, Sequential, none. From its documentation.
TABLE = {
    ("v5.1-12b", "16GB"): "QSSS--",
    ("v5.1-12b", "24GB"): "QQQQQ-",
    ("v5.1-12b", "40GB"): "MMMMMM",
    ("v5.1-7b", "16GB"): "QQSS--",
    ("v5.1-7b", "24GB"): "MMMQQ-",
    ("v5.1-7b", "40GB"): "MMMMMM",
    # Its low-memory mode was sequential offload.
    ("v3-960", "12GB"): "SSSS--",
    ("v3-960", "24GB"): "MMMMM-",
}
# Seconds per step of V5.1-12B, from the same page.
MEASURED = {"a100": (1.75, 3.7, 4.7, 11.4, 10.6, 28.3), "a10": (4.8, 9.6, 12.7, 29.8)}
MODES = {"M": "model_cpu_offload", "Q": "model_cpu_offload_and_qfloat8", "S": "sequential_cpu_offload"}


def asked(model: str, cell: str, **more: Any) -> GenerationRequest:
    height, width, frames = cell.split("x")
    size = f"{height}x{width}"
    request = GenerationRequest(prompt="a", model=model, size=size, frames=int(frames), steps=25, seed=1, **more)
    return find_preset(model).complete(request)


@cache
def counted(model: str) -> Counted:
    return Counted(find_preset(model), None, torch.bfloat16)


@cache
def planned(model: str, cell: str, device: str, offload: str = "auto", budget: str = "") -> RunPlan:
    more = {"vram_budget": budget} if budget else {}
    request = asked(model, cell, offload=offload, **more)
    return plan_run(request, find_preset(model), find_device(device), counted=counted(model))


# --- counting -----------------------------------------------------------------------------------------


def test_what_is_counted() -> None:
    with torch.device("meta"):
        linear, x = nn.Linear(8, 16, bias=False), torch.empty(4, 8)
    found = count(lambda: (linear(x) + 1).view(-1))
    assert (found.matmul, found.kernels, found.products) == (2 * 4 * 8 * 16, 2, 1)
    assert found.moved == 2 * 4 * 16 * 4, "the sum reads and writes; the view does nothing"
    assert found.peak == 2 * 4 * 16 * 4, "the product and the sum live at once"


def test_what_is_dropped_does_not_count_at_once() -> None:
    with torch.device("meta"):
        x = torch.empty(1000)

    def chain() -> torch.Tensor:
        y = x + 1
        y = y + 1
        return y + 1

    assert count(chain).peak == 2 * 4000


def test_attention_is_one_kernel_without_scores() -> None:
    q = torch.empty(1, 2, 100, 64, device="meta")
    found = count(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert found.attention == 4 * 2 * 100 * 100 * 64
    assert found.peak == q.numel() * 4
    assert found.kernels == 1


def test_equal_blocks_are_run_once_and_counted_all() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ran = 0
            self.blocks = nn.ModuleList(nn.Linear(8, 8, device="meta") for _ in range(5))
            self.blocks[0].register_forward_hook(self.count)
            for block in self.blocks:
                block.register_forward_hook(self.count)

        def count(self, *_: object) -> None:
            self.ran += 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    net, x = Net(), torch.empty(2, 8, device="meta")
    shared, alone = count(lambda: net(x), net), count(lambda: net(x))
    assert shared.matmul == alone.matmul == 5 * 2 * 2 * 8 * 8
    assert shared.kernels == alone.kernels
    assert not any("forward" in vars(block) for block in net.blocks)


# --- the real sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "count_of"), [("v5.1-12b", 11_799_056_960), ("v5.1-7b", 6_814_462_016)])
def test_real_models_are_as_large_as_published(model: str, count_of: int) -> None:
    made = counted(model).model(Choice.of(STORAGE, "native"))
    assert sum(p.numel() for p in made.modules["denoiser"].parameters()) == count_of
    assert sum(p.numel() for p in made.modules["vae"].parameters()) == 244_375_507
    assert {p.dtype for p in made.modules["text"].parameters()} == {torch.bfloat16}
    assert {p.device.type for module in made.modules.values() for p in module.parameters()} == {"meta"}


def test_a_step_of_the_12b_model_has_the_known_work() -> None:
    work = counted("v5.1-12b").work(asked("v5.1-12b", CELLS[1]), find_device("h100"))
    fused, plain = work.step
    assert plain.matmul / 1e12 == pytest.approx(291, rel=0.01)
    assert plain.attention / 1e12 == pytest.approx(211, rel=0.01)
    assert plain.moved / 1e9 == pytest.approx(923, rel=0.1)
    assert plain.kernels / 48 < 92
    assert fused.flop == pytest.approx(plain.flop, rel=0.01)
    assert fused.moved < 0.5 * plain.moved
    assert fused.peak <= plain.peak


@pytest.mark.feature("C064")
@pytest.mark.parametrize("device", list(MEASURED))
def test_predicted_seconds_hold_what_the_original_measured(device: str) -> None:
    for at in (1, 3):
        cell, seconds = CELLS[at], MEASURED[device][at]
        plan = planned("v5.1-12b", cell, device, "model")
        found = (plan.chosen or plan.others[0]).step
        assert found.low <= seconds <= found.high, f"{cell}: {found}"


@pytest.mark.feature("C064", "C047")
@pytest.mark.parametrize(
    ("model", "memory", "at"),
    [
        ("v5.1-12b", "16GB", 0),
        ("v5.1-12b", "16GB", 5),
        ("v5.1-12b", "24GB", 5),
        ("v5.1-12b", "40GB", 5),
        ("v5.1-7b", "24GB", 1),
        ("v3-960", "12GB", 3),
        ("v3-960", "24GB", 4),
        ("v3-960", "24GB", 5),
    ],
)
def test_what_ran_on_a_card_runs_there_and_more(model: str, memory: str, at: int) -> None:
    """A few cells; `benchmarks/memory_table.py` prints them all."""
    cell, mode = (V3_CELLS if model == "v3-960" else CELLS)[at], TABLE[model, memory][at]
    auto = planned(model, cell, memory)
    assert auto.chosen is not None, f"{cell}: {[other.short for other in auto.others]}"
    assert auto.chosen.exact
    if mode in MODES:
        same = planned(model, cell, memory, MODES[mode])
        assert same.chosen is not None, f"{cell} ran in mode {mode}: {same.others[0].short}"
        assert auto.chosen.seconds.high <= 1.01 * same.chosen.seconds.high, "and never slower"


@pytest.mark.feature("C047")
def test_the_largest_cell_fits_8_gb_when_the_halves_of_guidance_take_turns() -> None:
    found = planned("v5.1-12b", CELLS[5], "8GB").chosen
    assert found is not None
    assert found.exact
    assert found.apart
    assert found.offload.name == "stream"
    assert found.vram.high < 8e9
    assert not planned("v5.1-12b", CELLS[0], "8GB").chosen.apart  # type: ignore[union-attr]


def test_a_budget_is_kept() -> None:
    free, bound = planned("v5.1-12b", CELLS[0], "h100"), planned("v5.1-12b", CELLS[0], "h100", budget="8GiB")
    assert free.chosen is not None
    assert bound.chosen is not None
    assert free.chosen.vram.high > 8 * GIB >= bound.chosen.vram.high
    assert bound.chosen.offload.name == "stream"


@pytest.mark.feature("C053", "C064")
def test_what_step_caches_keep_is_foreseen() -> None:
    preset, device = find_preset("v5.1-12b"), find_device("h100")

    def denoising(*caches: Any) -> float:
        request = asked("v5.1-12b", CELLS[1], step_caches=caches, offload="resident")
        found = plan_run(request, preset, device, counted=counted("v5.1-12b")).taken().stages["denoise"]
        return found

    tokens = 2 * 13_104 * 3072 * 2  # both halves, bfloat16
    for kept, times in (("teacache", 2), ({"name": "teacache", "every": 8}, 1.125), ("first-block", 2)):
        assert denoising(kept) - denoising() == pytest.approx(1.1 * times * tokens, rel=0.01)
    assert denoising("easycache") == denoising()


@pytest.mark.feature("C064")
def test_what_is_prepared_for_all_steps_is_foreseen() -> None:
    preset, device = find_preset("v5.1-12b"), find_device("h100")

    def denoising(steps: int, offload: Any) -> float:
        request = asked("v5.1-12b", CELLS[1], offload=offload).model_copy(update={"steps": steps})
        return plan_run(request, preset, device, counted=counted("v5.1-12b")).taken().stages["denoise"]

    of_a_step = 48 * 2 * 6 * 3072 * 2  # blocks, norms of a block, vectors of a norm, their width, bfloat16
    for offload in ("resident", "model"):
        more = denoising(50, offload) - denoising(25, offload)
        assert more == pytest.approx(1.1 * 25 * of_a_step, rel=0.01)
    for offload in ("sequential", {"name": "stream", "budget": "8GiB"}):
        assert denoising(50, offload) == denoising(25, offload), "blocks come and go"


def test_what_does_not_fit_is_refused_with_a_reason() -> None:
    plan = planned("v5.1-12b", CELLS[5], "h100", budget="1GiB")
    assert plan.chosen is None
    with pytest.raises(OutOfMemory, match=r"does not fit: '\w+' needs .* GiB of 1\.00 GiB on 'h100'"):
        plan.taken()


PUBLISHED = {
    "v1": 1_429_029_536,
    "v2-512": 1_446_296_864,
    "v3-960": 1_538_364_704,
    "v4-inp": 1_954_844_704,
    "v5-7b-inp": 6_813_097_536,
    "v5-12b-inp": 11_797_692_480,
    "v5.1-7b-inp": 6_814_670_912,
    "v5.1-12b-inp": 11_799_265_856,
}
"""Parameters of the denoisers, as the releases have them; of V2 and V4 as their geometry gives them."""


@pytest.mark.feature("C064")
@pytest.mark.parametrize("model", [*PUBLISHED, "v1-image", "v5.1-nano-inp"])
def test_models_are_known_without_their_weights(model: str) -> None:
    preset = find_preset(model)
    made = sketch(preset, folder_of(preset, None), torch.bfloat16, Native())
    roles = ["text", "text_2"][: len(preset.components.text_encoders)]
    roles += ["image"] if preset.components.image_encoder else []
    assert list(made.modules) == [*roles, "denoiser", "vae"]
    if preset.bundled is None:
        motion = sum(extra.disk_gb or 0 for extra in preset.extras if extra.kind == "motion-module")
        stored = made.loading / 1e9  # in two bytes each; some releases keep four
        assert 0.45 * preset.disk_gb < stored < 1.1 * (preset.disk_gb + motion)
    if model in PUBLISHED:
        assert sum(p.numel() for p in made.modules["denoiser"].parameters()) == PUBLISHED[model]


@pytest.mark.feature("C064")
def test_every_preset_is_one_of_them() -> None:
    for preset in all_presets():
        configs = Configs(preset, folder_of(preset, None))
        assert preset.in_channels in (None, configs.denoiser()["in_channels"])


@pytest.mark.feature("C064")
@pytest.mark.parametrize("model", ["v5.1-nano-camera", "v1-image", "v2-512", "v3-960", "v4-inp", "v5-7b-inp"])
def test_every_generation_is_planned(model: str) -> None:
    preset = find_preset(model)
    request = preset.complete(GenerationRequest(prompt="a", model=model, seed=1))
    found = plan_run(request, preset, find_device("24GB")).chosen
    assert found is not None
    assert 0 < found.vram.low <= found.vram.high < 24e9
    assert 0 < found.step.low < found.step.high


def test_a_model_that_no_release_is_like_has_to_be_at_hand() -> None:
    own = find_preset("v5.1-7b").model_copy(update={"name": "mine"})
    with pytest.raises(InvalidRequest, match="how large 'mine' is can only be read from its checkpoint"):
        sketch(own, None, torch.bfloat16, Native())


class Foreign(MMDiT):
    """A third party's denoiser that looks at numbers."""

    def trunk(self, tokens: Any) -> Any:
        return tokens if float(tokens.video.sum()) > 0 else super().trunk(tokens)


class ForeignPlugin:
    @hookimpl
    def easyanimate_register(self, registrar: Registrar) -> None:
        registrar.add("denoisers", "foreign", f"{__name__}:Foreign", summary="looks at numbers")


def test_a_model_of_someone_else_that_cannot_be_counted_stays_on_the_device(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "tiny", max_length=32)
    heard = Recorder()
    with using(Host(discover=False, plugins={"easyanimate-foreign": ForeignPlugin()})):
        preset = find_preset("nano")
        foreign = preset.components.model_copy(update={"denoiser": "foreign"})
        pipe = load(preset.model_copy(update={"name": "own", "components": foreign}), weights=weights)
        pipe.settle(pipe.complete(prompt="a", frames=5, size="32x48", vram_budget="1GiB"), EventBus(heard))
    assert pipe.assembly.offload.name == "resident"
    (said,) = [event for event in heard if isinstance(event, Notice)]
    assert said.level == "warning"
    assert said.message.startswith("the planner cannot count 'Foreign', which does not run without weights: ")
    assert said.message.endswith("weights stay on the device")


def test_a_fault_of_ours_is_not_taken_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    preset = find_preset("nano")
    made = sketch(preset, folder_of(preset, None), torch.float32, Native())
    monkeypatch.setattr(made.modules["denoiser"], "trunk", broken)
    with pytest.raises(RuntimeError, match=r"^a fault$"):
        work_of(made, Geometry(32, 32, 5, 1), 1, guided=False, dtype=torch.float32)


# --- measured -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("offload", ["resident", "model", "sequential", "stream"])
def test_weights_on_the_device_are_as_foretold(tmp_path: Path, offload: str) -> None:
    weights = write_checkpoint(tmp_path / "tiny", max_length=32)
    said = {"prompt": "a", "size": "32x48", "frames": 5, "steps": 1, "seed": 1}
    pipe = load("nano", weights=weights, offload=offload)
    pipe(**said)
    strategy: Any = pipe.prepare().offload
    made = sketch(pipe.preset, weights, torch.float32, Choice.of(STORAGE, "native").create())
    feet = {role: strategy.footprint(role, module) for role, module in made.modules.items()}
    idle = sum(foot.idle for foot in feet.values())
    most = max(foot.used - foot.idle for foot in feet.values()) + idle
    assert most <= strategy.held()[1] <= 1.2 * most


def test_memory_of_a_step_is_as_counted() -> None:
    """What torch's allocator hands out while nano's denoiser runs, against the count on the meta device."""
    preset = find_preset("nano")
    pipe = load("nano")
    denoiser: Any = pipe.prepare().denoiser
    made = sketch(preset, pipe.assembly.folder, torch.float32, Native())

    def inputs(device: str) -> tuple[Any, ...]:
        from easyanimate_core.data import TextEmbedding

        config = denoiser.config
        latents = torch.zeros(2, config.in_channels, 5, 16, 16, device=device)
        states = torch.zeros(2, 40, config.text_embed_dim, device=device)
        text = [TextEmbedding(states, torch.ones(2, 40, dtype=torch.long, device=device))]
        return latents, torch.full((2,), 500.0, device=device), text, {}

    def step(model: Any, given: tuple[Any, ...]) -> None:
        model.head(model.trunk(model.embed(*given)))

    there = inputs("meta")
    counted = count(lambda: step(made.modules["denoiser"], there), made.modules["denoiser"])
    given = inputs("cpu")
    with torch.no_grad():
        step(denoiser, given)
        with torch.profiler.profile(profile_memory=True) as watched:
            step(denoiser, given)
    live = most = 0
    for event in watched.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    assert most == pytest.approx(counted.peak, rel=0.35)


# --- auto, and the command ----------------------------------------------------------------------------


@pytest.mark.feature("C047")
def test_auto_is_resident_where_everything_fits(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "tiny", max_length=32)
    pipe = load("nano", weights=weights)
    assert pipe.assembly.offload.name == "auto"
    pipe(prompt="a", size="32x48", frames=5, steps=1, seed=1)
    assert (pipe.assembly.offload.name, pipe.assembly.storage.name) == ("resident", "native")


def test_auto_asks_the_planner_for_a_budget_and_says_so(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "tiny", max_length=32)
    pipe, heard = load("nano", weights=weights), Recorder()
    said = {"prompt": "a", "size": "32x48", "frames": 5, "steps": 1, "seed": 1}
    want = pipe(**said).frames
    again = pipe(**said, vram_budget="4MiB", events=EventBus(heard))
    assert torch.equal(again.frames, want)
    notices = [event.message for event in heard if isinstance(event, Notice)]
    assert any(message.startswith("placement: ") for message in notices)
    strategy: Any = pipe.prepare().offload
    assert pipe.assembly.offload.name != "auto"
    assert strategy.held()[1] < 4 << 20
    with pytest.raises(OutOfMemory, match="does not fit"):
        pipe(**said, vram_budget="1KiB")


def test_a_budget_is_kept_or_refused_for_a_placement_that_is_named(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "tiny", max_length=32)
    said = {"prompt": "a", "size": "32x48", "frames": 5, "steps": 1, "seed": 1}
    pipe = load("nano", weights=weights, offload="model")
    pipe(**said, vram_budget="6MiB")
    assert pipe.assembly.offload.name == "model"
    with pytest.raises(OutOfMemory, match=r"needs .* of 0\.2 MiB on 'cpu' \(least of all: model"):
        pipe(**said, vram_budget="200KiB")


def test_the_command_tells_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert easyanimate(["plan", "--device", "rtx3060", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["device"]["name"] == "rtx3060"
    assert told["chosen"]["fits"]
    assert told["chosen"]["exact"]
    low, high = told["chosen"]["vram_bytes"]
    assert 0 < low <= high
    assert {other["storage"] for other in told["others"]} >= {"easyanimate-core:native", "easyanimate-core:float8"}
    assert easyanimate(["plan", "a red circle", "--offload", "model", "--device", "24GB"]) == 0
    assert "model + native" in capsys.readouterr().out


def test_the_command_fails_where_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert easyanimate(["plan", "--device", "rtx3060", "--vram-budget", "1MiB"]) == 4
    assert "does not fit" in capsys.readouterr().err


def test_devices_are_found_by_name_or_size() -> None:
    assert find_device("RTX4090").memory == round(23.5 * GIB)
    assert 22 * GIB < find_device("24GB").memory < 24e9
    assert find_device("cpu").kind == "cpu"
    with pytest.raises(InvalidRequest, match="no device is called 'rtx409'") as caught:
        find_device("rtx409")
    assert "rtx4090" in caught.value.hint


def test_bytes_are_written_as_people_write_them() -> None:
    assert parse_bytes("8GiB") == 8 * GIB
    assert parse_bytes("1.5 gb") == 1_500_000_000
    assert parse_bytes(7) == 7
    assert written_bytes(8 * GIB) == "8.00 GiB"
    with pytest.raises(ValueError, match="such as 8GiB"):
        parse_bytes("8 apples")
    with pytest.raises(ValueError, match="vram_budget"):
        GenerationRequest(prompt="a", vram_budget="many")
