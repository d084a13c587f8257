"""Write the JSON Schemas of the documents that users write, and of the manifest that we write: `make schemas`.

They describe the documents with their own package and core installed; what your other plugins add is in
`easyanimate generate --schema` on your machine.
A test compares the committed copies with what this writes, so that a change is a conscious one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from easyanimate_core.engine import Manifest
from easyanimate_core.plugins import Host, using
from easyanimate_core.presets import Preset
from easyanimate_core.request import GenerationRequest
from easyanimate_core.schema import export_schema
from easyanimate_train import plugin
from easyanimate_train.config import TrainConfig

HERE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "schemas"


def main(folder: Path) -> None:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with using(Host(discover=False)):
        documents = {
            "request": export_schema(GenerationRequest),
            "manifest": export_schema(Manifest),
            "preset": export_schema(Preset),
        }
    with using(Host(discover=False, plugins={"easyanimate-train": plugin})):
        documents["train"] = export_schema(TrainConfig)
    for name, schema in documents.items():
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
