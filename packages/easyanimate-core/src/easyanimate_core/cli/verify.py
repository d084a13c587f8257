"""`easyanimate verify`: is a video what its manifest says, and could this machine make it again?"""

from __future__ import annotations

from pathlib import Path

import click

from easyanimate_core.cli.running import open_engine
from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.errors import MediaError

__all__ = ["command"]


@click.command("verify", short_help="check a video against its manifest")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(file: Path, as_json: bool) -> None:
    """Check FILE against its manifest.

    Pictures or a sidecar that changed are an error (status 4). Weights, inputs and versions only say whether this
    machine could make the same again: easyanimate replay.
    """
    from easyanimate_core.engine.verify import verify

    with open_engine() as engine:
        findings = verify(file, engine.store)
    if as_json:
        print_json([{"what": found.what, "state": found.state, "said": found.said} for found in findings])
    else:
        print_table(("CHECKED", "STATE", ""), [(found.what, found.state, found.said) for found in findings])
    for found in findings:
        if found.what in ("pictures", "sidecar") and found.state == "changed":
            raise MediaError(f"the {found.what} of '{file}' changed: {found.said}", "Get the original file.")
