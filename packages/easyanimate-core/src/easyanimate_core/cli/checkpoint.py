"""`easyanimate checkpoint`: what a file of weights is, whether it is whole, and the same in another layout."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.errors import CheckpointError, ConfigError

__all__ = ["command"]

_PATH: Final = click.Path(path_type=Path)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_LORA: Final = ("kohya", "peft")


@click.group("checkpoint", short_help="inspect, verify, convert and hash weights")
def command() -> None:
    """Look into checkpoints, components and LoRA files, check them, and write them in another layout.

    PATH is a checkpoint's folder, a component's folder, or a file. Nothing in a file is ever run.
    """


@command.command("inspect")
@click.argument("path", type=_PATH)
@_JSON
def _inspect(path: Path, as_json: bool) -> None:
    """Say what PATH holds: layout, tensors, parameters, and which release it is. Reads headers only."""
    from easyanimate_core.checkpoints.inspection import inspect

    found = inspect(path.expanduser())
    if as_json:
        print_json([asdict(item) for item in found])
        return
    print_table(
        ("PART", "LAYOUT", "FILES", "TENSORS", "PARAMETERS", "SIZE", "TYPE", "REMARK"),
        [
            (
                item.name,
                item.layout or "-",
                str(item.files),
                str(item.tensors),
                f"{item.parameters:,}",
                _size(item.bytes),
                "+".join(item.dtypes),
                item.remark,
            )
            for item in found
        ],
    )


@command.command("verify")
@click.argument("path", type=_PATH)
@click.option("--model", metavar="NAME", help="The model that it should be; see 'easyanimate presets list'.")
@click.option("--motion-path", type=_PATH, metavar="FILE", help="The motion module that completes an image model.")
@_JSON
def _verify(path: Path, model: str | None, motion_path: Path | None, as_json: bool) -> None:
    """Check that PATH would load: every name and shape, every number finite. Reads everything once, keeps nothing."""
    from easyanimate_core.pipeline.verify import verify
    from easyanimate_core.presets import find_preset

    preset = find_preset(model) if model is not None else None
    verdicts = []
    for verdict in verify(path.expanduser(), preset, motion_path=motion_path and motion_path.expanduser()):
        verdicts.append(verdict)
        if not as_json:
            click.echo(f"{'ok   ' if verdict.good else 'wrong'}  {verdict.name}: {verdict.said}")
    if as_json:
        print_json([asdict(verdict) for verdict in verdicts])
    wrong = [verdict for verdict in verdicts if not verdict.good]
    if wrong:
        raise CheckpointError(f"{len(wrong)} of {len(verdicts)} parts of '{path}' would not load", wrong[0].hint)


@command.command("convert")
@click.argument("source", type=_PATH)
@click.argument("target", type=_PATH)
@click.option(
    "--to",
    "layout",
    type=click.Choice(["easyanimate", "diffusers", *_LORA]),
    required=True,
    help="Layout to write: easyanimate or diffusers for models; kohya, peft or diffusers for LoRA files.",
)
@_JSON
def _convert(source: Path, target: Path, layout: str, as_json: bool) -> None:
    """Write SOURCE, a checkpoint's folder, a weight file or a LoRA, in another layout to TARGET, bit for bit."""
    from easyanimate_core.checkpoints.convert import convert_checkpoint, convert_file

    source, target = source.expanduser(), target.expanduser()
    if target.exists():
        raise ConfigError(f"'{target}' exists already", "Choose another place, or remove it first.")
    if layout in _LORA or _is_lora(source):
        document = _convert_lora(source, target, layout)
    else:
        done = convert_checkpoint(source, target, layout) if source.is_dir() else convert_file(source, target, layout)
        document = {"path": str(done.path), "found": dict(done.found), "tensors": done.tensors, "renamed": done.renamed}
    if as_json:
        print_json(document)
    else:
        click.echo(document["path"])


@command.command("hash")
@click.argument("path", type=_PATH)
@_JSON
def _hash(path: Path, as_json: bool) -> None:
    """SHA-256 of each file of weights, as 'sha256sum' prints it; compare with what the hub's page says."""
    from easyanimate_core.checkpoints.inspection import hash_files

    found = []
    for file, digest in hash_files(path.expanduser()):
        found.append({"path": str(file), "sha256": digest})
        if not as_json:
            click.echo(f"{digest}  {file}")
            sys.stdout.flush()
    if as_json:
        print_json(found)


def _is_lora(source: Path) -> bool:
    from easyanimate_core.checkpoints.archive import Archive
    from easyanimate_core.checkpoints.lora.names import part_of

    if source.is_dir():
        return any((source / f"{stem}.safetensors").is_file() for stem in ("adapter_model", "pytorch_lora_weights"))
    with Archive([source]) as archive:
        return any(part_of(name) for name in archive.header.tensors)


def _convert_lora(source: Path, target: Path, layout: str) -> dict[str, object]:
    from easyanimate_core.checkpoints.lora import read_lora, write_lora

    file = read_lora(source)
    written = write_lora(file, target, layout)
    return {"path": str(written), "found": file.layout, "layers": len(file.layers)}


def _size(count: int) -> str:
    """Bytes for people, in powers of ten as shops write them."""
    for unit, digits in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**digits:
            return f"{count / 10**digits:.1f} {unit}"
    return f"{count} B"
