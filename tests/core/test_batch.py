"""Batch files: many requests in one file, each checked by itself; run again, only what is missing is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from easyanimate_core.cli.main import run
from easyanimate_core.engine import JobStore, read_manifest
from easyanimate_core.engine.batch import BatchEntry, Combine, read_batch
from easyanimate_core.errors import InvalidOptions
from easyanimate_core.testing import write_checkpoint

Said = tuple[int, str, str]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"), max_length=48)


def read(folder: Path, name: str, text: str, combine: Combine | None = None) -> tuple[BatchEntry, ...]:
    path = folder / name
    path.write_text(dedent(text).lstrip(), encoding="utf-8")
    return read_batch(path, combine)


def pairs_of(entries: tuple[BatchEntry, ...]) -> list[tuple[str | None, object, object]]:
    return [(entry.place, e.prompt, e.seed) if (e := entry.request) else (entry.place, None, None) for entry in entries]


def prompts(entries: tuple[BatchEntry, ...]) -> list[str | None]:
    return [entry.request.prompts[0] if entry.request else None for entry in entries]


class TestFiles:
    def test_json_lines(self, tmp_path: Path) -> None:
        entries = read(
            tmp_path,
            "jobs.jsonl",
            """
            {"prompt": "红色的圆", "seed": 1, "output": "one.mp4"}

            {"prompt": "a star", "sampler": {"name": "flow", "shift": 3}}
            """,
        )
        assert prompts(entries) == ["红色的圆", "a star"]
        assert [entry.place for entry in entries] == ["line 1", "line 3"]
        assert [entry.output for entry in entries] == ["one.mp4", None]

    def test_csv(self, tmp_path: Path) -> None:
        entries = read(
            tmp_path,
            "jobs.csv",
            """
            prompt,seed,size,sampler,sampler.shift,conditions
            "a red circle, moving",1,32x48,flow,3,
            a star,,,,,[]
            """,
        )
        first, second = (entry.request for entry in entries)
        assert first is not None
        assert (first.prompt, first.seed, str(first.size)) == ("a red circle, moving", 1, "32x48")
        assert first.sampler is not None
        assert first.sampler.given == {"shift": 3.0}
        assert second is not None
        assert (second.seed, second.sampler, second.conditions) == (None, None, ())

    def test_toml_with_jobs_and_defaults(self, tmp_path: Path) -> None:
        entries = read(
            tmp_path,
            "jobs.toml",
            """
            [defaults]
            steps = 9
            [[jobs]]
            prompt = "a"
            [[jobs]]
            prompt = "b"
            steps = 3
            """,
        )
        assert [(e.request.prompt, e.request.steps) for e in entries if e.request] == [("a", 9), ("b", 3)]

    @pytest.mark.parametrize(
        ("combine", "pairs"),
        [("zip", [("a", 1), ("b", 2)]), ("product", [("a", 1), ("a", 2), ("b", 1), ("b", 2)])],
    )
    def test_lists_are_paired_or_crossed_as_the_file_says(
        self, tmp_path: Path, combine: str, pairs: list[tuple[str, int]]
    ) -> None:
        text = f'combine = "{combine}"\n[vary]\nprompt = ["a", "b"]\nseed = [1, 2]\n'
        entries = read(tmp_path, "jobs.toml", text)
        assert [(e.request.prompt, e.request.seed) for e in entries if e.request] == pairs

    def test_a_line_of_json_may_vary(self, tmp_path: Path) -> None:
        text = (
            '{"prompt": "a", "vary": {"seed": [1, 2]}}\n'
            '{"vary": {"prompt": ["b", "c"], "seed": [3, 4]}, "combine": "zip"}\n'
            '{"vary": {"prompt": ["d", "e"], "seed": [5, 6]}, "combine": "product"}\n'
        )
        varied = [("line 1, job 1", "a", 1), ("line 1, job 2", "a", 2), ("line 2, job 1", "b", 3)]
        varied += [("line 2, job 2", "c", 4), ("line 3, job 1", "d", 5), ("line 3, job 2", "d", 6)]
        varied += [("line 3, job 3", "e", 5), ("line 3, job 4", "e", 6)]
        assert pairs_of(read(tmp_path, "jobs.jsonl", text)) == varied
        assert len(read(tmp_path, "jobs.jsonl", text, "product")) == 2 + 4 + 4
        assert len(read(tmp_path, "jobs.jsonl", text, "zip")) == 2 + 2 + 2

    def test_columns_are_crossed_when_that_is_asked_for(self, tmp_path: Path) -> None:
        text = "prompt,seed,sampler,sampler.shift\na,1,flow,3\nb,,,\n,2,,\n"
        rows = [("line 2", "a", 1), ("line 3", "b", None)]
        assert pairs_of(read(tmp_path, "jobs.csv", text, "zip"))[:2] == rows
        crossed = read(tmp_path, "jobs.csv", text, "product")
        each = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
        assert pairs_of(crossed) == [(f"job {i}", *pair) for i, pair in enumerate(each, start=1)]
        assert {e.request.sampler.given["shift"] for e in crossed if e.request and e.request.sampler} == {3.0}

    def test_jobs_of_toml_may_vary_and_the_command_line_decides(self, tmp_path: Path) -> None:
        text = 'combine = "zip"\n[vary]\nprompt = ["a", "b"]\nseed = [1, 2]\n'
        text += '[[jobs]]\nprompt = "c"\nvary = {seed = [3, 4]}\n'
        expected = [("job 1, job 1", "c", 3), ("job 1, job 2", "c", 4), ("job 2", "a", 1), ("job 3", "b", 2)]
        assert pairs_of(read(tmp_path, "jobs.toml", text)) == expected
        assert len(read(tmp_path, "jobs.toml", text, "product")) == 2 + 4

    def test_one_line_that_cannot_be_combined_is_told_and_the_others_stand(self, tmp_path: Path) -> None:
        text = (
            '{"vary": {"prompt": ["a", "b"], "seed": [1]}, "combine": "zip"}\n'
            '{"vary": {"prompt": ["a"], "seed": [1]}}\n'
            '{"prompt": "x", "vary": {}}\n{"prompt": "x", "vary": 3}\n{"prompt": "c"}\n'
        )
        entries = read(tmp_path, "jobs.jsonl", text)
        assert prompts(entries) == [None, None, None, None, "c"]
        said = [entry.error.message for entry in entries if entry.error]
        assert said[0] == "the entry pairs lists of different lengths: prompt has 2, seed has 1"
        assert said[1] == "the entry does not say how prompt, seed combine"
        assert said[2] == said[3] == "the entry: what varies is a list of values each"

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("jobs.toml", '[vary]\nprompt = ["a"]\nseed = [1]\n', "does not say how prompt, seed combine"),
            ("jobs.toml", 'combine = "zip"\n[vary]\nprompt = ["a", "b"]\nseed = [1]\n', "different lengths"),
            ("jobs.toml", 'combine = "zip"\n[vary]\nprompt = "a"\n', "is a list of values"),
            ("jobs.toml", "[job]\n", "has 'job' at its top"),
            ("jobs.toml", "= 3", "is not valid"),
            ("jobs.csv", "", "has no header"),
            ("jobs.csv", 'prompt\n"a', "is not valid"),
            ("jobs.yaml", "", "is no batch file"),
        ],
    )
    def test_a_file_that_cannot_be_meant_is_refused(self, tmp_path: Path, name: str, text: str, said: str) -> None:
        with pytest.raises(InvalidOptions, match=said):
            read(tmp_path, name, text)

    def test_a_wrong_entry_is_told_and_the_others_stand(self, tmp_path: Path) -> None:
        text = '{"prompt": "a"}\n{"prompt": "b", "stesp": 3}\n{nonsense\n[1]\n{"prompt": "c"}\n'
        entries = read(tmp_path, "jobs.jsonl", text)
        assert prompts(entries) == ["a", None, None, None, "c"]
        errors = {entry.place: entry.error.message for entry in entries if entry.error}
        assert list(errors) == ["line 2", "line 3", "line 4"]
        assert "stesp" in errors["line 2"]

    def test_entries_are_known_by_what_they_say(self, tmp_path: Path) -> None:
        before = read(tmp_path, "a.jsonl", '{"prompt": "a"}\n{"prompt": "a"}\n{"prompt": "b"}\n')
        after = read(tmp_path, "b.jsonl", '{"prompt": "b"}\n{"prompt": "new"}\n{"prompt": "a"}\n{"prompt": "a"}\n')
        assert len({entry.key for entry in before}) == 3
        assert [entry.key for entry in after] == [before[2].key, after[1].key, before[0].key, before[1].key]


class TestCommand:
    @pytest.fixture
    def batch(
        self, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., Said]:
        """Write a file of small requests and run it: status, stdout, stderr."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("EASYANIMATE_HOME", str(tmp_path / "home"))

        def call(*requests: dict[str, object], arguments: tuple[str, ...] = ()) -> Said:
            small = {"weights": str(weights), "size": "32x48", "frames": 5, "steps": 1}
            lines = [json.dumps({**small, **request}) for request in requests]
            Path("jobs.jsonl").write_text("\n".join(lines), encoding="utf-8")
            status = run(["batch", "jobs.jsonl", *arguments])
            out, err = capsys.readouterr()
            return status, out, err

        return call

    def test_all_are_made_and_the_wrong_one_is_told(self, batch: Callable[..., Said]) -> None:
        status, out, err = batch({"prompt": "a"}, {"prompt": ""}, {"prompt": "b", "output": "named.mp4"})
        assert status == 4
        assert out == "outputs/00000001.mp4\nnamed.mp4\n"
        assert err.startswith("line 2: 'prompt' is '': it must not be empty. Say what the video should show.\n")
        assert "error: 1 of 3 entries failed\n" in err
        assert read_manifest("named.mp4").request["prompt"] == "b"

    def test_run_again_it_makes_what_is_missing(self, batch: Callable[..., Said]) -> None:
        first, second, third = ({"prompt": name} for name in ("a", "b", "c"))
        assert batch(first, second)[1] == "outputs/00000001.mp4\noutputs/00000002.mp4\n"
        assert batch(second, first) == (0, "", ""), "all is done, in whatever order"
        Path("outputs/00000002.mp4").unlink()
        assert batch(first, second, third)[1] == "outputs/00000003.mp4\noutputs/00000004.mp4\n"
        assert [read_manifest(f"outputs/0000000{i}.mp4").request["prompt"] for i in (1, 3, 4)] == ["a", "b", "c"]

    def test_a_product_is_resumed_too(self, batch: Callable[..., Said]) -> None:
        crossed = {"vary": {"prompt": ["a", "b"], "seed": [1, 2]}, "combine": "product"}
        status, out, err = batch(crossed, {"vary": {"prompt": ["c"], "seed": ["x"]}, "combine": "zip"})
        assert (status, len(out.splitlines())) == (4, 4)
        assert err.startswith("line 2, job 1: 'seed' is 'x'")
        Path("outputs/00000003.mp4").unlink()
        assert batch(crossed)[1] == "outputs/00000005.mp4\n"
        assert read_manifest("outputs/00000005.mp4").request["prompt"] == "b"

    def test_what_was_begun_goes_on_with_its_seed(self, batch: Callable[..., Said]) -> None:
        assert batch({"prompt": "a", "output": "a.mp4"}, arguments=("--dry-run",))[:2] == (0, "line 1: a\n")
        Path("a.mp4").write_text("somebody else's")
        assert batch({"prompt": "a", "output": "a.mp4"})[0] == 4
        (failed,) = JobStore().list()
        Path("a.mp4").unlink()
        assert batch({"prompt": "a", "output": "a.mp4"})[0] == 0
        assert JobStore().get(failed.id).state == "done"
        assert read_manifest("a.mp4").request["seed"] == failed.spec.request["seed"]
