"""`easyanimate models`: which weights are on this machine, where, how to get them and how to get rid of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from easyanimate_core.cli.tables import print_json, print_table
from easyanimate_core.errors import CheckpointNotFound, ConfigError, UnknownComponent

if TYPE_CHECKING:
    from easyanimate_core.checkpoints.hub import Repo

__all__ = ["command"]

_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_HUB: Final = click.option(
    "--from", "hub", type=click.Choice(["huggingface", "modelscope"]), help="Hub to use. Default: huggingface."
)


@click.group("models", short_help="list, find, download and remove weights")
def command() -> None:
    """Weights of models: list them, find them, download and remove them.

    NAME is a model of 'easyanimate presets list', or a repository: owner/name, modelscope:owner/name. One file of a
    repository, such as a LoRA, is owner/name:FILE.
    Downloads go into the standard caches of the hubs, and only when you ask with 'pull'.
    """


@command.command("list")
@_JSON
def _list(as_json: bool) -> None:
    """One line per model: where its weights are, or that they are not here."""
    from easyanimate_core.pipeline.assemble import locate
    from easyanimate_core.presets import all_presets

    rows: list[dict[str, Any]] = []
    for preset in all_presets():
        try:
            path: Path | None = locate(preset, None)
        except CheckpointNotFound:
            path = None
        rows.append(
            {
                "name": preset.name,
                "title": preset.title,
                "task": preset.task,
                "disk_gb": preset.disk_gb,
                "huggingface": preset.huggingface,
                "modelscope": preset.modelscope,
                "path": str(path) if path is not None else None,
            }
        )
    if as_json:
        print_json(rows)
        return
    print_table(
        ("NAME", "DISK", "HERE", "FROM"),
        [
            (row["name"], f"{row['disk_gb']:g} GB", "yes" if row["path"] else "no", row["huggingface"] or "the package")
            for row in rows
        ],
    )


@command.command("where")
@click.argument("name")
def _where(name: str) -> None:
    """Print the folder of NAME's weights, or the place of one file; an error when they are not here."""
    from easyanimate_core.checkpoints.lora import locate_lora
    from easyanimate_core.checkpoints.source import resolve
    from easyanimate_core.pipeline.assemble import locate

    if _one_file(name)[1]:
        click.echo(str(locate_lora(name)))
        return
    preset = _preset(name)
    click.echo(str(resolve(name) if preset is None else locate(preset, None)))


@command.command("pull")
@click.argument("name")
@_HUB
@click.option("--revision", metavar="REVISION", help="Branch, tag or commit. Default: the hub's own.")
@click.option("--dry-run", is_flag=True, help="Ask the hub, list what would be downloaded and where to, and stop.")
@click.option("--offline", is_flag=True, help="Ask no network: an error unless everything is here already.")
@_JSON
def _pull(name: str, hub: str | None, revision: str | None, dry_run: bool, offline: bool, as_json: bool) -> None:
    """Download NAME's weights into the cache and print where they are. Run it again to go on after a break."""
    from easyanimate_core.checkpoints import hub as hubs

    name, only = _one_file(name)
    repo = _repo(name, hub)
    if offline or hubs.is_offline():
        found = hubs.cached(repo, revision)
        if found is None or not (found / only).exists():
            raise CheckpointNotFound(f"'{repo}' is not on this machine", "Run it without --offline to download it.")
        _told(found / only, repo, as_json)
        return
    if dry_run:
        files = hubs.remote_files(repo, revision=revision, only=only)
        if as_json:
            print_json([{"name": f.name, "bytes": f.bytes, "path": str(f.path), "here": f.present} for f in files])
            return
        print_table(
            ("BYTES", "HERE", "PATH"), [(str(f.bytes), "yes" if f.present else "no", str(f.path)) for f in files]
        )
        return
    _told(_downloaded(repo, revision, only) / only, repo, as_json)


@command.command("prune")
@click.argument("names", nargs=-1)
@_HUB
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="List what would be removed, and stop.")
def _prune(names: tuple[str, ...], hub: str | None, yes: bool, dry_run: bool) -> None:
    """Remove downloaded weights of NAMES from the caches; without NAMES, what broken downloads left of our models."""
    doomed = [path for name in names for path in _homes(_repo(name, hub))] if names else list(_leftovers())
    if not doomed:
        click.echo("nothing to remove", err=True)
        return
    freed = sum(_weight(path) for path in doomed)
    for path in doomed:
        click.echo(str(path))
    click.echo(f"{freed / 1e9:.1f} GB", err=True)
    if dry_run or not (yes or click.confirm("Remove?", err=True)):
        return
    for path in doomed:
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path)


def _one_file(name: str) -> tuple[str, str]:
    """`owner/name:file` as its repository and the file; the file is empty when none is named."""
    from easyanimate_core.checkpoints.hub import file_of

    found = file_of(name)
    return (name.removesuffix(f":{found[1]}"), found[1]) if found is not None and found[1] else (name, "")


def _preset(name: str) -> Any:
    """The preset of a name, or `None` when the name is a repository's."""
    from easyanimate_core.checkpoints.hub import repo_of
    from easyanimate_core.presets import find_preset

    try:
        return find_preset(name)
    except UnknownComponent:
        if repo_of(name) is None:
            raise
        return None


def _repo(name: str, hub: str | None) -> Repo:
    from easyanimate_core.checkpoints.hub import Repo, repo_of
    from easyanimate_core.pipeline.assemble import repos_of

    preset = _preset(name)
    if preset is None:
        found = repo_of(name)
        assert found is not None  # _preset() decided
        return Repo(hub, found.id) if hub is not None else found
    repos = repos_of(preset)
    chosen = [repo for repo in repos if hub in (None, repo.hub)]
    if not chosen:
        raise ConfigError(
            f"the weights of '{preset.name}' are not on {hub or 'a hub'}",
            "They come with the package." if preset.bundled else "",
        )
    return chosen[0]


def _downloaded(repo: Repo, revision: str | None, only: str) -> Path:
    from easyanimate_core.checkpoints.hub import pull
    from easyanimate_core.cli.interrupt import cancel_on_interrupt
    from easyanimate_core.cli.progress import RunProgress
    from easyanimate_core.events import CancelToken, EventBus

    token = CancelToken()
    with (
        RunProgress() as progress,
        cancel_on_interrupt(token, lambda: progress.say("stopping; what has arrived is kept")),
    ):
        return pull(repo, revision=revision, only=only, events=EventBus(progress), cancel=token)


def _told(path: Path, repo: Repo, as_json: bool) -> None:
    if as_json:
        print_json({"repository": repo.id, "hub": repo.hub, "path": str(path)})
    else:
        click.echo(str(path))


def _homes(repo: Repo) -> Iterator[Path]:
    """What the caches hold of a repository, all revisions."""
    from easyanimate_core.checkpoints.modelscope import cache_folder

    if repo.hub == "modelscope":
        home = cache_folder(repo.id)
        found = {home, home.with_name(repo.id.partition("/")[2])}
    else:
        found = {_huggingface() / f"models--{repo.id.replace('/', '--')}"}
    yield from (path for path in sorted(found) if path.is_dir() or path.is_symlink())


def _leftovers() -> Iterator[Path]:
    """Half files of the models that we know; other programs' downloads may be under way."""
    from easyanimate_core.pipeline.assemble import repos_of
    from easyanimate_core.presets import all_presets

    for preset in all_presets():
        for repo in repos_of(preset):
            for home in _homes(repo):
                yield from sorted(home.rglob("*.incomplete"))


def _huggingface() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _weight(path: Path) -> int:
    if path.is_file() or path.is_symlink():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
