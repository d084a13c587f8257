"""The command line: quick, quiet, and one line with a hint for every mistake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import click
import pytest
from rich.console import Console

from easyanimate_core import Host, using
from easyanimate_core.cli.documents import assign, is_document, read_document
from easyanimate_core.cli.flags import options_of
from easyanimate_core.cli.interrupt import cancel_on_interrupt
from easyanimate_core.cli.main import run
from easyanimate_core.cli.progress import RunProgress, StepClock
from easyanimate_core.engine.outputs import Destination, sidecar_of, write_json
from easyanimate_core.errors import InvalidOptions
from easyanimate_core.events import CancelToken, EventBus, Notice, StageFinished, StageProgress, StageStarted, Step
from easyanimate_core.plugins import hookimpl
from easyanimate_core.request import GenerationRequest

EASYANIMATE = Path(sys.executable).parent / "easyanimate"
PROMPT = "a red circle moving right on a blue background"


def easyanimate(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command, as a user does."""
    return subprocess.run(
        [EASYANIMATE, *args],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd or Path.cwd()), "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


Said = tuple[int, str, str]
Say = Callable[..., Said]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line in this process: status, stdout, stderr."""

    def call(*args: str) -> Said:
        status = run(args)
        out, err = capsys.readouterr()
        return status, out, err

    return call


class TestStart:
    """What a newcomer types first."""

    def test_help_names_every_command_and_its_purpose(self) -> None:
        done = easyanimate("--help")
        assert done.returncode == 0
        for name in ("generate", "presets", "plugins", "doctor", "completion"):
            assert f"\n  {name} " in done.stdout
        assert "make a video from a prompt" in done.stdout

    @pytest.mark.parametrize(
        "args",
        [
            ["--help"],
            ["generate", "--help"],
            ["generate", "--schema"],
            ["generate", PROMPT, "--dry-run"],
            ["presets", "list"],
            ["presets", "schema"],
            ["plugins", "list"],
            ["completion", "fish"],
        ],
        ids=" ".join,
    )
    def test_asking_costs_no_torch(self, args: list[str], tmp_path: Path) -> None:
        code = (
            "import sys; from easyanimate_core.cli.main import run; status = run(sys.argv[1:]);"
            "heavy = {'torch', 'transformers', 'diffusers', 'av', 'PIL'} & sys.modules.keys();"
            "sys.exit(status or (f'imported {heavy}' if heavy else 0))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_version(self) -> None:
        assert easyanimate("--version").stdout == "easyanimate 0.1.0\n"

    def test_nothing_is_answered_with_help(self) -> None:
        done = easyanimate()
        assert done.returncode == 2
        assert "Commands:" in done.stderr

    def test_a_terminal_with_an_old_code_page_is_no_error(self) -> None:
        done = easyanimate("generate", "--help", PYTHONIOENCODING="iso8859-5")
        assert done.returncode == 0
        assert "1?1000" in done.stdout

    def test_a_reader_that_stops_early_is_no_error(self) -> None:
        line = f"{EASYANIMATE} generate --schema | head -n 1"
        done = subprocess.run(["bash", "-c", line], capture_output=True, encoding="utf-8", check=False)
        assert (done.stdout, done.stderr) == ("{\n", "")


class TestGenerateHelp:
    """Every option says its unit, its range and its default."""

    @pytest.fixture
    def text(self, say: Say) -> str:
        status, out, _ = say("generate", "--help")
        assert status == 0
        return " ".join(out.split())

    def test_every_field_of_the_request_is_an_option(self, text: str) -> None:
        many = {"conditions", "loras", "segment_prompts", "step_caches"}  # said one at a time
        for name in set(GenerationRequest.model_fields) - {"prompt"}:
            flag = name.removesuffix("s") if name in many else name
            assert f"--{flag.replace('_', '-')} " in text

    @pytest.mark.parametrize(
        ("option", "unit", "span"),
        [
            ("--size", "HEIGHTxWIDTH", ""),
            ("--frames", "FRAMES", "1…4096"),
            ("--fps", "FRAMES/S", "120"),
            ("--steps", "STEPS", "1…1000"),
            ("--guidance", "NUMBER", "1…30"),
            ("--guidance-rescale", "NUMBER", "0…1"),
            ("--seed", "INTEGER", "0…2⁶³−1"),
            ("--videos-per-prompt", "INTEGER", "1…64"),
            ("--scale", "TIMES", "1…16"),
            ("--sampler", "NAME|JSON", "Installed: euler, euler-a, dpm++, pndm, ddim, lcm, flow"),
        ],
    )
    def test_unit_range_and_default(self, text: str, option: str, unit: str, span: str) -> None:
        entry = text.split(f"{option} {unit} ", 1)[1].split(" --")[0]
        assert span in entry
        assert "default" in entry.casefold()

    def test_a_plugin_s_component_appears(self, say: Say) -> None:
        class Heun:
            @hookimpl
            def easyanimate_register(self, registrar) -> None:
                registrar.add("samplers", "heun", "easyanimate_heun:Heun", summary="second order")

        with using(Host(discover=False, plugins={"easyanimate-heun": Heun()})):
            (option,) = (o for o in options_of(GenerationRequest)(click.Command("any")).params if o.name == "sampler")
            assert ", flow, heun." in option.help


class TestRequest:
    """Flags, job files and `--set` write one document; `--dry-run` shows it."""

    def ask(self, say: Say, *args: str) -> dict[str, object]:
        status, out, err = say("generate", *args, "--dry-run")
        assert (status, err) == (0, "")
        return json.loads(out)

    def test_defaults_come_from_the_preset_and_the_seed_is_drawn(self, say: Say) -> None:
        request = self.ask(say, PROMPT)
        assert request["prompt"] == PROMPT
        assert request["model"] == "nano"
        assert isinstance(request["seed"], int)
        assert None not in (request["size"], request["frames"], request["steps"], request["sampler"])

    @pytest.mark.feature("C060")
    def test_flags(self, say: Say) -> None:
        request = self.ask(say, PROMPT, "--size", "32x48", "--frames=5", "--steps", "3", "--seed", "43", "--scale=4")
        assert request["size"] == {"height": 32, "width": 48}
        assert (request["frames"], request["steps"], request["seed"], request["scale"]) == (5, 3, 43, 4)

    @pytest.mark.feature("C060")
    @pytest.mark.parametrize("suffix", [".toml", ".json"])
    def test_a_job_file_overridden_by_flags_overridden_by_set(self, say: Say, tmp_path: Path, suffix: str) -> None:
        job = tmp_path / f"job{suffix}"
        if suffix == ".toml":
            job.write_text('prompt = "蓝色背景"\nsteps = 3\nframes = 5\n[sampler]\nname = "flow"\n', encoding="utf-8")
        else:
            write_json(job, {"prompt": "蓝色背景", "steps": 3, "frames": 5, "sampler": {"name": "flow"}})
        request = self.ask(say, str(job), "--steps", "4", "--set", "frames=9", "--set", "sampler.shift=2.5")
        assert request["prompt"] == "蓝色背景"
        assert (request["steps"], request["frames"]) == (4, 9)
        assert request["sampler"]["shift"] == 2.5

    def test_a_component_with_options_as_json(self, say: Say) -> None:
        request = self.ask(say, PROMPT, "--sampler", '{"name": "flow", "shift": 2}')
        assert request["sampler"] == {**request["sampler"], "name": "easyanimate-core:flow", "shift": 2}

    @pytest.mark.feature("C006")
    @pytest.mark.parametrize("prompt", ["一个红色的圆在蓝色背景上向右移动", "красный круг → вправо", "🎆 über dem See"])
    def test_prompts_of_any_language_arrive_unchanged(self, prompt: str, tmp_path: Path) -> None:
        done = easyanimate("generate", prompt, "--dry-run", cwd=tmp_path, LC_ALL="C", PYTHONUTF8="1")
        assert json.loads(done.stdout)["prompt"] == prompt


MISTAKES = {
    "unknown preset": (["x", "--model", "nanu"], "'nanu'", "'nano'"),
    "unknown sampler": (["x", "--sampler", "flwo"], "'flwo'", "'flow'"),
    "sampler options": (["x", "--set", "sampler.shfit=3", "--sampler", "flow"], "'sampler.shfit'", "'shift'"),
    "sampler JSON": (["x", "--sampler", "{flow"], "not valid JSON", '{"name": "flow"'),
    "size is no size": (["x", "--size", "big"], "'big'", ""),
    "size too large": (["x", "--size", "2048x2048"], "'2048x2048'", "multiples"),
    "size zero": (["x", "--size", "0x64"], "'0'", ""),
    "frames zero": (["x", "--frames", "0"], "'0'", ""),
    "frames too many": (["x", "--frames", "4000"], "'4000'", "--frames"),
    "frames no number": (["x", "--frames", "ten"], "'ten'", ""),
    "steps": (["x", "--steps", "0"], "'0'", ""),
    "guidance low": (["x", "--guidance", "0.5"], "'0.5'", ""),
    "guidance high": (["x", "--guidance", "99"], "'99'", ""),
    "guidance not a number": (["x", "--guidance", "nan"], "'nan'", ""),
    "rescale": (["x", "--guidance-rescale", "2"], "'2'", ""),
    "seed": (["x", "--seed", "-1"], "'-1'", ""),
    "fps": (["x", "--fps", "0"], "'0'", ""),
    "scale": (["x", "--scale", "0"], "'0'", ""),
    "empty prompt": ([" "], "must not be empty", "Say what the video should show"),
    "no prompt": ([], "there is no prompt", "easyanimate generate"),
    "unknown option": (["x", "--stpes", "3"], "'--stpes'", "--help"),
    "option without value": (["x", "--steps"], "'--steps'", "--help"),
    "two prompts": (["x", "y"], "y", "--help"),
    "unknown setting": (["x", "--set", "stpes=3"], "'stpes'", "'steps'"),
    "setting without value": (["x", "--set", "steps"], "'steps'", "--set sampler.shift=3"),
    "missing job": (["none.toml"], "'none.toml'", "job file"),
}


class TestMistakes:
    """Each is one line and a hint on stderr, status 2 (request) or 4 (files), nothing on stdout."""

    @pytest.mark.feature("C039")
    @pytest.mark.feature("C060")
    @pytest.mark.parametrize(("args", "says", "hints"), MISTAKES.values(), ids=MISTAKES)
    def test_requests(self, say: Say, args: list[str], says: str, hints: str) -> None:
        status, out, err = say("generate", "--dry-run", *args)
        first, *rest = err.strip().splitlines()
        assert (status, out) == (2, "")
        assert first.startswith("error: ")
        assert says in first
        assert len(rest) <= 1
        assert hints in err
        assert "pydantic" not in err

    def test_files(self, say: Say, tmp_path: Path) -> None:
        (tmp_path / "there.mp4").write_text("mine")
        for output, says, hint in [
            ("there.mp4", "exists already", "--overwrite"),
            ("there.mp4/clip.mp4", "is not a folder", "another place"),
            ("clip.avi", "cannot write '.avi' files", ".mp4"),
            ("clip.png", "can hold 1 frame", ".mp4"),
        ]:
            status, out, err = say("generate", PROMPT, "--dry-run", "--output", str(tmp_path / output))
            assert (status, out) == (4, "")
            assert says in err
            assert hint in err
        assert (tmp_path / "there.mp4").read_text() == "mine"

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses files even to root")
    def test_a_folder_that_refuses_files(self, say: Say) -> None:
        status, _, err = say("generate", PROMPT, "--output", "/proc/self/clip.mp4")
        assert status == 4
        assert "refuses files" in err

    def test_commands(self, say: Say) -> None:
        assert say("gen") == (2, "", "error: no command is called 'gen'\nhint: Did you mean 'generate'?\n")
        assert "Did you mean 'doctor'?" in say("docter")[2]
        with using(Host(discover=False)):
            assert "Installing easyanimate-train provides it." in say("train")[2]
        assert say("presets", "show", "nanu")[0] == 2
        assert "Did you mean 'core'?" in say("plugins", "info", "cor")[2]
        assert say("completion", "tcsh")[0] == 2

    def test_a_job_file_that_is_not_valid(self, say: Say, tmp_path: Path) -> None:
        (tmp_path / "job.toml").write_text("prompt = ")
        (tmp_path / "job.json").write_text("[1]")
        (tmp_path / "extra.toml").write_text('prompt = "x"\nstpes = 3\n')
        for name, says in [("job.toml", "is not valid"), ("job.json", "holds no settings"), ("extra.toml", "'stpes'")]:
            status, _, err = say("generate", str(tmp_path / name), "--dry-run")
            assert status == 2
            assert says in err

    def test_surprises_are_one_line_and_debug_shows_the_trace(self, say: Say) -> None:
        class Broken:
            @hookimpl
            def easyanimate_register(self, registrar) -> None:
                registrar.add("commands", "boom", f"{__name__}:boom")

        with using(Host(discover=False, plugins={"easyanimate-broken": Broken()})):
            status, _, err = say("boom")
            assert status == 1
            assert err.startswith("error: unexpected ZeroDivisionError: ")
            assert "hint: Run again with --debug" in err
            assert "Traceback" not in err
            assert "Traceback" in say("boom", "--debug")[2]
            assert "Traceback" in say("--debug", "generate", "x", "--steps", "0")[2]


@click.command()
def boom() -> None:
    raise ZeroDivisionError("in a plugin")


class TestListings:
    """Tables for people, JSON for programs."""

    def test_presets(self, say: Say) -> None:
        _, table, _ = say("presets", "list")
        listed = json.loads(say("presets", "list", "--json")[1])
        names = [preset["name"] for preset in listed]
        assert {"nano", "v5.1-7b", "v5.1-12b-camera"} <= set(names)
        assert [line.split()[0] for line in table.splitlines()[1:]] == names
        shown = json.loads(say("presets", "show", "EasyAnimateV5.1-7b-zh", "--json")[1])
        assert shown["name"] == "v5.1-7b"
        assert "384x672 px" in say("presets", "show", "v5.1-7b")[1]
        assert json.loads(say("presets", "schema")[1])["title"] == "Preset"

    def test_plugins(self, say: Say) -> None:
        assert "easyanimate-core" in say("plugins", "list")[1]
        core = json.loads(say("plugins", "list", "--json")[1])[0]
        assert (core["name"], core["state"]) == ("core", "loaded")
        assert "samplers" in core["slots"]
        assert any(component["name"] == "flow" for component in core["components"])
        assert json.loads(say("plugins", "info", "easyanimate-core", "--json")[1]) == core
        assert "flow-matching Euler" in say("plugins", "info", "core")[1]

    def test_a_broken_plugin_is_listed_with_its_reason(self, say: Say) -> None:
        class Clash:
            @hookimpl
            def easyanimate_register(self, registrar) -> None:
                registrar.add("samplers", "flow", "easyanimate_clash:Flow")

        with using(Host(discover=False, plugins={"easyanimate-clash": Clash()})):
            _, out, _ = say("plugins", "list")
            assert "broken" in out
            assert "easyanimate-core already does" in out
            assert "easyanimate-core already does" in say("plugins", "info", "clash")[1]
            assert "easyanimate-core already does" in say("doctor")[1]

    def test_doctor_gives_a_reason_for_each(self) -> None:
        done = easyanimate("doctor", "--json")
        findings = json.loads(done.stdout)
        assert done.returncode == 0
        assert {f["area"] for f in findings} == {
            "versions",
            "devices",
            "memory",
            "attention",
            "kernels",
            "media",
            "models",
            "plugins",
        }
        assert all(f["said"] for f in findings)
        works = {f["name"]: f["works"] for f in findings}
        assert works["torch"]
        assert works["cpu"]
        assert works["sdpa"]
        assert works[".mp4"]

    def test_request_schema(self, say: Say) -> None:
        assert json.loads(say("generate", "--schema")[1])["title"] == "GenerationRequest"

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_completion_script(self, shell: str) -> None:
        assert "_EASYANIMATE_COMPLETE" in easyanimate("completion", shell).stdout

    def test_completion_of_commands_and_options(self) -> None:
        def complete(words: str) -> str:
            return easyanimate(
                _EASYANIMATE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
            ).stdout

        assert complete("easyanimate ge") == "plain,generate\n"
        assert "plain,--guidance\n" in complete("easyanimate generate --gui")


class TestDocuments:
    def test_assign(self) -> None:
        document = {"sampler": "flow", "steps": 3}
        changed = assign(
            document,
            ["sampler.shift=3", "steps=4", "size=[16, 32]", "conditions.0.name=camera", "model=nano", 'prompt="12"'],
        )
        assert changed == {
            "sampler": {"name": "flow", "shift": 3},
            "steps": 4,
            "size": [16, 32],
            "conditions": [{"name": "camera"}],
            "model": "nano",
            "prompt": "12",
        }
        assert document == {"sampler": "flow", "steps": 3}

    @pytest.mark.parametrize("setting", ["steps", "=3", "a..b=3", "steps.x=1", "conditions.1.name=x", "conditions.a=x"])
    def test_settings_that_cannot_be(self, setting: str) -> None:
        with pytest.raises(InvalidOptions):
            assign({"steps": 3, "conditions": []}, [setting])

    def test_read(self, tmp_path: Path) -> None:
        (tmp_path / "bad.toml").write_bytes(b"prompt = '\xff'")
        with pytest.raises(InvalidOptions, match="not valid"):
            read_document(tmp_path / "bad.toml")
        with pytest.raises(InvalidOptions, match="cannot read"):
            read_document(tmp_path / "none.json")
        assert is_document("job.TOML")
        assert not is_document("a circle. toml")


class TestDestination:
    def test_numbered_by_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert Destination.of(None, count=1, frames=9).places()[0] == Path("outputs/00000001.mp4")
        assert Destination.of(None, count=1, frames=1).places()[0] == Path("outputs/00000001.png")
        assert Destination.of("new/", count=1, frames=9).places()[0] == Path("new/00000001.mp4")
        assert Destination.of(str(tmp_path), count=1, frames=9).places()[0] == tmp_path / "00000001.mp4"

    def test_several_videos_under_one_name(self) -> None:
        several = Destination.of("clip.gif", count=2, frames=9)
        assert several.places() == (Path("clip-1.gif"), Path("clip-2.gif"))

    def test_the_sidecar_never_takes_the_place_of_a_job(self) -> None:
        assert sidecar_of(Path("a/demo.mp4")) == Path("a/demo.mp4.json")


class TestProgress:
    def test_no_estimate_before_two_steps(self) -> None:
        now = iter([0.0, 10.0, 11.0, 12.0])
        clock = StepClock(lambda: next(now))
        assert clock.seconds_per_step is None
        clock.tick()
        assert (clock.seconds_per_step, clock.remaining(5)) == (10.0, None)
        clock.tick()
        assert (clock.seconds_per_step, clock.remaining(5)) == (1.0, 5.0), "the first step, which warms up, is left out"
        clock.tick()
        assert clock.remaining(60) == 60.0

    def shown(self, *, terminal: bool) -> str:
        file = StringIO()
        with RunProgress(Console(file=file, force_terminal=terminal, width=120, color_system=None)) as progress:
            bus = EventBus(progress)
            bus.emit(StageStarted("denoise"))
            for index in range(3):
                bus.emit(Step(index, 12))
                progress.refresh()
            bus.emit(Notice("float8 is slow here", "warning"))
            bus.emit(StageFinished("denoise", 1.5))
            bus.emit(StageStarted("condition"))
            bus.emit(StageFinished("condition", 0.001))
            bus.emit(StageStarted("decode"))
            bus.emit(StageProgress("decode", 5, 17, "frames"))
            progress.refresh()
        return file.getvalue()

    def test_a_terminal_shows_phase_step_pace_and_estimate(self) -> None:
        text = self.shown(terminal=True)
        for part in ("denoise", "1/12", "3/12", "s/it", "ETA 0:0", "1.5 s", "5/17 frames"):
            assert part in text
        assert "ETA" not in text[: text.index("2/12")]
        assert "condition" not in text.rsplit("1.5 s", 1)[1], "a phase too short to see leaves no line"

    def test_elsewhere_only_notices(self) -> None:
        assert self.shown(terminal=False) == "warning: float8 is slow here\n"


class TestInterrupt:
    def test_once_asks_twice_stops(self) -> None:
        cancel, said = CancelToken(), []
        before = signal.getsignal(signal.SIGINT)

        def interrupt_twice() -> None:
            signal.raise_signal(signal.SIGINT)
            assert cancel.cancelled
            signal.raise_signal(signal.SIGINT)

        with cancel_on_interrupt(cancel, lambda: said.append("stopping")), pytest.raises(KeyboardInterrupt):
            interrupt_twice()
        assert said == ["stopping"]
        assert signal.getsignal(signal.SIGINT) is before


def test_an_option_of_the_models_own_sampler_needs_no_name(say: Say) -> None:
    _, out, _ = say("generate", "a cat", "--set", "sampler.shift=3", "--dry-run")
    assert json.loads(out)["sampler"] == {"name": "easyanimate-core:flow", "shift": 3.0}


def test_an_option_of_a_plugin_that_is_not_here_names_it() -> None:
    without = {"EASYANIMATE_DISABLE_PLUGINS": "easyanimate-control"}
    done = easyanimate("generate", "a dog", "--camera-move", "pan-left", **without)
    assert done.returncode == 2
    assert "Installing easyanimate-control provides it." in done.stderr
