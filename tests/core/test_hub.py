"""Downloads happen when asked, into the standard caches, and go on after a break. The hub is on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyanimate_core.checkpoints import modelscope
from easyanimate_core.checkpoints.hub import Repo, cached, pull, remote_files, repo_of
from easyanimate_core.checkpoints.source import resolve
from easyanimate_core.cli.main import run
from easyanimate_core.errors import Cancelled, CheckpointNotFound, UnsafeCheckpoint
from easyanimate_core.events import CancelToken, Event, EventBus, StageProgress
from easyanimate_core.testing import write_checkpoint
from hub_server import COMMIT, HubServer, serving

REPO = "somebody/EasyAnimateV5.1-tiny"
MS = Repo("modelscope", REPO)
LARGE = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    root = write_checkpoint(tmp_path_factory.mktemp("hub"))
    (root / "demo.mp4").write_bytes(b"\0" * 1000)
    with serving(REPO, root) as server:
        yield server


@pytest.fixture
def home(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of ModelScope, and the network switched on: only the loopback is asked."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    server.asked.clear()
    server.extra = ()
    return tmp_path


def command(server: HubServer, home: Path, *args: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own: the hub's client reads its settings when it is imported."""
    settings = {
        "HF_HUB_OFFLINE": str(int(offline)),
        "TRANSFORMERS_OFFLINE": str(int(offline)),
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_CACHE": str(home / "hf" / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "MODELSCOPE_CACHE": str(home / "ms"),
        "MODELSCOPE_ENDPOINT": server.url,
    }
    return subprocess.run(
        [sys.executable, "-c", "from easyanimate_core.cli.main import main; main()", *args],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def same_files(one: Path, other: Path) -> bool:
    def content(root: Path) -> dict[str, bytes]:
        found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".mp4")
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}

    return content(one) == content(other)


@pytest.mark.parametrize(
    ("written", "repo"),
    [
        (REPO, Repo("huggingface", REPO)),
        (f"hf:{REPO}", Repo("huggingface", REPO)),
        (f"modelscope:{REPO}", MS),
        (f"ms:{REPO}", MS),
        ("nano", None),
        ("a/b/c", None),
        ("../x", None),
        ("/a/b", None),
        ("ftp:a/b", None),
    ],
)
def test_ids_are_told_from_paths(written: str, repo: Repo | None) -> None:
    assert repo_of(written) == repo


@pytest.mark.feature("C066")
def test_hugging_face_from_nothing_to_a_loadable_folder(server: HubServer, tmp_path: Path) -> None:
    server.asked.clear()
    listed = command(server, tmp_path, "models", "pull", REPO, "--dry-run", "--json")
    files = json.loads(listed.stdout)
    assert {file["name"] for file in files} == {p.relative_to(server.root).as_posix() for p in server.files()} - {
        "demo.mp4"
    }
    assert not any(file["here"] for file in files)
    assert all(file["path"].startswith(str(tmp_path)) for file in files)
    assert not server.asked

    early = command(server, tmp_path, "models", "pull", REPO, "--offline")
    assert (early.returncode, early.stdout) == (3, "")
    pulled = command(server, tmp_path, "models", "pull", REPO)
    assert pulled.returncode == 0, pulled.stderr
    folder = Path(pulled.stdout.strip())
    assert folder == tmp_path / "hf" / "hub" / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT
    assert same_files(folder, server.root)
    asked = len(server.asked)
    again = command(server, tmp_path, "models", "pull", f"hf:{REPO}")
    assert (again.returncode, len(server.asked)) == (0, asked)
    assert command(server, tmp_path, "models", "where", REPO, offline=True).stdout.strip() == str(folder)
    # The weights are links into the cache's blobs, and load from there.
    checked = command(server, tmp_path, "checkpoint", "verify", str(folder), offline=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    kept = command(server, tmp_path, "models", "prune", REPO, "--dry-run")
    assert folder.is_dir()
    assert str(folder.parent.parent) in kept.stdout
    assert command(server, tmp_path, "models", "prune", REPO, "--yes").returncode == 0
    assert not folder.parent.parent.exists()


def test_a_repository_that_is_not_there_is_one_line(server: HubServer, tmp_path: Path) -> None:
    for name in ("somebody/else", "modelscope:somebody/else"):
        done = command(server, tmp_path, "models", "pull", name)
        assert done.returncode == 3
        assert done.stderr.startswith("error: ")
        assert "somebody/else" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.feature("C066")
def test_modelscope_from_nothing_to_a_folder(server: HubServer, home: Path) -> None:
    assert cached(MS) is None
    with pytest.raises(CheckpointNotFound, match="neither a folder here nor in the cache") as caught:
        resolve(f"modelscope:{REPO}")
    assert f"easyanimate models pull modelscope:{REPO}" in caught.value.hint
    assert not any(file.present for file in remote_files(MS))
    heard: list[Event] = []
    folder = pull(MS, events=EventBus(heard.append))
    assert folder == home / "models" / "somebody" / "EasyAnimateV5___1-tiny"
    assert same_files(folder, server.root)
    assert resolve(f"modelscope:{REPO}") == folder
    progress = [event for event in heard if isinstance(event, StageProgress)]
    done = [event.done for event in progress]
    assert done == sorted(done)
    assert done[-1] == progress[-1].total == sum(file.bytes for file in remote_files(MS))
    asked = len(server.asked)
    assert pull(MS) == folder
    assert len(server.asked) == asked


@pytest.mark.feature("C066")
def test_one_file_of_a_repository(server: HubServer, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A LoRA's repository holds many; only the one that is named comes."""
    wanted = f"modelscope:{REPO}:vae/config.json"
    assert run(["models", "where", wanted]) == 3
    assert f"easyanimate models pull {wanted}" in capsys.readouterr().err
    assert run(["models", "pull", wanted]) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file == modelscope.cache_folder(REPO) / "vae" / "config.json"
    assert file.read_bytes() == (server.root / "vae" / "config.json").read_bytes()
    assert [asked for _, asked, _ in server.asked] == ["vae/config.json"]
    for offline in (["where", wanted], ["pull", wanted, "--offline"]):
        assert run(["models", *offline]) == 0
        assert capsys.readouterr().out.strip() == str(file)
    assert run(["models", "pull", f"modelscope:{REPO}:nothing.safetensors"]) == 3
    assert "has no file 'nothing.safetensors'" in capsys.readouterr().err

    pulled = command(server, home, "models", "pull", f"{REPO}:vae/config.json")
    assert pulled.returncode == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).parts[-4:] == ("snapshots", COMMIT, "vae", "config.json")
    assert len(server.asked) == 2


def test_modelscope_goes_on_where_it_stopped(server: HubServer, home: Path) -> None:
    server.break_after = 200_000
    with pytest.raises(CheckpointNotFound) as caught:
        pull(MS)
    assert "again" in caught.value.hint
    part = modelscope.cache_folder(REPO) / f"{LARGE}.incomplete"
    assert part.stat().st_size == 200_000
    folder = pull(MS)
    assert ("GET", LARGE, "bytes=200000-") in server.asked
    assert same_files(folder, server.root)


def test_what_arrives_is_compared_with_its_digest(server: HubServer, home: Path) -> None:
    part = modelscope.cache_folder(REPO) / f"{LARGE}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\1" * 1000)  # of another file
    with pytest.raises(CheckpointNotFound, match="did not arrive as the hub describes it"):
        pull(MS)
    assert not part.exists()
    assert same_files(pull(MS), server.root)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a\\outside"])
def test_a_hub_cannot_write_out_of_its_folder(server: HubServer, home: Path, name: str) -> None:
    server.extra = (name,)
    with pytest.raises(UnsafeCheckpoint, match="the hub names the file"):
        pull(MS)
    assert not list(home.rglob("*outside"))
    assert not server.asked


def test_a_download_can_be_stopped(server: HubServer, home: Path) -> None:
    token = CancelToken()
    bus = EventBus(lambda event: token.cancel() if isinstance(event, StageProgress) else None)
    with pytest.raises(Cancelled):
        pull(MS, events=bus, cancel=token)
    assert same_files(pull(MS), server.root)


def test_offline_means_offline(server: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for repo in (MS, Repo("huggingface", REPO)):
        with pytest.raises(CheckpointNotFound, match="network is switched off"):
            pull(repo)
    assert not server.asked
