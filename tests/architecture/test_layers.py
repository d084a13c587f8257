"""Rule 1: imports point down only. The layers are written in `pyproject.toml` under `[tool.importlinter]`."""

from __future__ import annotations

import subprocess
import sys

from workspace import ROOT


def test_imports_point_down_and_plugins_do_not_know_each_other():
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
