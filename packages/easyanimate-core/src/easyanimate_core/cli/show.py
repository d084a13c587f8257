"""`easyanimate show`: what a video was made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.engine import read_manifest

if TYPE_CHECKING:
    from easyanimate_core.engine import Manifest

__all__ = ["command"]


@click.command("show", short_help="tell what a video was made of")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def command(file: Path, as_json: bool) -> None:
    """Tell what FILE was made of: a video, a picture, kept latents, or a sidecar."""
    manifest = read_manifest(file)
    if as_json:
        print_json(manifest.as_json())
        return
    print_table(("MANIFEST", str(file)), _facts(manifest))


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    request, video, ran = manifest.request, manifest.video, manifest.ran
    prompt = request.get("prompt", "")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    seed = manifest.sample.seed if manifest.sample is not None else ", ".join(map(str, manifest.seeds))
    settings = ("negative_prompt", "steps", "guidance", "sampler", "loras", "conditions", "scale")
    return [
        *(("prompt", text) for text in prompts),
        ("seed", str(seed)),
        ("video", f"{video.frames} frames of {video.height}x{video.width} px at {video.fps:g} frames/s"),
        ("model", f"{manifest.model.preset} ({manifest.model.generation}), {len(manifest.model.weights)} files"),
        *((name, _said(request[name])) for name in settings if request.get(name)),
        *(("input", f"{file.path} (SHA-256 {file.sha256[:12]}…)") for file in manifest.inputs),
        ("ran", f"{ran.dtype} on {ran.device} ({ran.device_name}), attention {ran.attention}"),
        ("weights", f"offload {_said(ran.offload)}; storage {_said(ran.storage)}"),
        ("stages", " → ".join(ran.stages)),
        ("determinism", manifest.determinism),
        ("seconds", f"{manifest.seconds.get('total', 0):g}"),
        *((name, version) for name, version in manifest.versions.items()),
    ]


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return ", ".join(map(_said, value)) if isinstance(value, list) else str(value)
