"""Rule 6: what people install. Built once, offline, with the tools of this environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import combinations
from pathlib import Path

import pytest

from environments import make_environment, run
from workspace import PACKAGES, SIBLINGS

pytestmark = pytest.mark.slow


def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


def test_no_two_wheels_write_the_same_file(wheels: dict[str, Path]):
    for one, other in combinations(wheels.values(), 2):
        assert not files(one) & files(other)


def test_a_wheel_holds_its_package_and_nothing_else(wheels: dict[str, Path]):
    for name, wheel in wheels.items():
        package = name.replace("-", "_")
        assert {path.split("/")[0].partition("-")[0] for path in files(wheel)} == {package}
        assert f"{package}/py.typed" in files(wheel)
        assert any(path.endswith("/licenses/LICENSE") for path in files(wheel))


def test_every_source_file_is_in_the_wheel(wheels: dict[str, Path]):
    for name, wheel in wheels.items():
        source = PACKAGES[name] / "src"
        here = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
        caches = {path for path in here if any(part.startswith((".", "__pycache__")) for part in path.parts)}
        assert {path.as_posix() for path in here - caches} <= files(wheel)


def test_the_packages_move_in_lockstep(wheels: dict[str, Path]):
    versions = {re.search(r"^Version: (.+)$", metadata(wheel), re.MULTILINE)[1] for wheel in wheels.values()}  # type: ignore[index]
    assert len(versions) == 1
    major, minor = versions.pop().split(".")[:2]
    for name in SIBLINGS:
        assert f"Requires-Dist: easyanimate-core<{major}.{int(minor) + 1},>={major}.{minor}" in metadata(wheels[name])


RESOLVE = """
import json
from importlib.metadata import distributions, entry_points
from easyanimate_core.plugins import Host
points = {point.name: point.load().__name__ for point in entry_points(group="easyanimate")}
rows = [(row.distribution, row.state, row.reason) for row in Host(environ={"EASYANIMATE_STRICT_PLUGINS": "1"}).plugins]
ours = sorted({d.name for d in distributions() if d.name.startswith("easyanimate")})
print(json.dumps({"points": points, "rows": rows, "ours": ours}))
"""


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_plugin_works_without_the_other_plugins(name: str, wheels: dict[str, Path], libraries: Path, tmp_path: Path):
    python = make_environment(tmp_path / "env", libraries, wheels["easyanimate-core"], wheels[name])
    told = json.loads(run(python, "-c", RESOLVE))
    declared = tomllib.loads((PACKAGES[name] / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    assert told["ours"] == sorted(["easyanimate-core", name])
    assert told["points"] == declared["easyanimate"]
    assert told["rows"] == [["easyanimate-core", "loaded", ""], [name, "loaded", ""]]


def test_core_works_alone(wheels: dict[str, Path], libraries: Path, tmp_path: Path):
    python = make_environment(tmp_path / "env", libraries, wheels["easyanimate-core"])
    told = json.loads(run(python, "-c", RESOLVE))
    assert told["rows"] == [["easyanimate-core", "loaded", ""]]
    command = python.with_name("easyanimate")
    assert "easyanimate" in run(command, "--version")
    assert "--output" in run(command, "generate", "--help")


def test_control_can_be_taken_away_again(wheels: dict[str, Path], libraries: Path, tmp_path: Path):
    python = make_environment(tmp_path / "env", libraries, wheels["easyanimate-core"], wheels["easyanimate-control"])
    command = python.with_name("easyanimate")
    asked = ("generate", "a red circle", "--model", "v5.1-12b-camera", "--dry-run")
    assert "easyanimate-control" in run(command, "plugins", "list")
    assert "easyanimate-control:camera" in run(command, *asked, "--camera-move", "pan-left")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "uninstall", "--yes", "--quiet", "easyanimate-control")
    assert "easyanimate-control" not in run(command, "plugins", "list")
    assert "a red circle" in run(command, *asked)
    for words in ([*asked, "--condition", "camera"], ["control", "camera"]):
        done = subprocess.run([command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "Installing easyanimate-control provides it." in done.stderr
