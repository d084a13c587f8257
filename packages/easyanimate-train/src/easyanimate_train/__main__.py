"""`python -m easyanimate_train RECIPE`: the command `easyanimate train`, for launchers that start modules."""

from __future__ import annotations

import sys

from easyanimate_core.cli.main import run

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
