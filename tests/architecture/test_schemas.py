"""Rule 7: a document that users write changes by decision. After one, run `make schemas` and commit the difference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from workspace import ROOT

COMMITTED = ROOT / "docs" / "reference" / "schemas"


def test_the_committed_schemas_are_those_of_the_code(tmp_path: Path):
    subprocess.run([sys.executable, ROOT / "tools" / "schemas.py", tmp_path], check=True)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in COMMITTED.glob("*.json")}
    assert "request.json" in written
    assert written == committed, "the schemas changed: run `make schemas`, and look at the difference"
