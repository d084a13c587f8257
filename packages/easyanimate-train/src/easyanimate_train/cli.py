"""`easyanimate train RECIPE`: run, stop and resume training."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from easyanimate_core.cli.documents import assign, read_document
from easyanimate_core.cli.interrupt import cancel_on_interrupt
from easyanimate_core.cli.progress import RunProgress
from easyanimate_core.errors import ConfigError
from easyanimate_core.events import CancelToken, EventBus, StageStarted
from easyanimate_core.schema import parse

__all__ = ["command", "recipe_path", "recipes"]


def recipes() -> tuple[str, ...]:
    """Names of the recipes in the package."""
    folder = resources.files("easyanimate_train") / "recipes"
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def recipe_path(recipe: str) -> Path:
    """A recipe's file: a path, or the name of one in the package.

    Raises:
        ConfigError: there is neither.
    """
    if Path(recipe).is_file():
        return Path(recipe)
    if recipe in recipes():
        return Path(str(resources.files("easyanimate_train") / "recipes" / f"{recipe}.toml"))
    raise ConfigError(f"there is no recipe '{recipe}'", f"Give a file, or one of: {', '.join(recipes())}.")


@click.command()
@click.argument("recipe")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a field, e.g. --set optim.warmup=100."
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in the output folder.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's choice when left out.")
def command(recipe: str, settings: tuple[str, ...], resume: bool, threads: int | None) -> None:
    """Train a model by RECIPE, a TOML file or the name of a shipped recipe.

    Ctrl-C writes a checkpoint and stops; --resume goes on bit for bit. Metrics go to metrics.jsonl in the output
    folder, the result to final/ in the layout of a released checkpoint.
    """
    from easyanimate_train.config import TrainConfig

    document = assign(read_document(recipe_path(recipe)), settings)
    config = parse(TrainConfig, document, of=f"recipe '{recipe}'")

    import torch

    from easyanimate_train.loop.trainer import Trainer

    if threads is not None:
        torch.set_num_threads(threads)
    cancel = CancelToken()
    with RunProgress() as progress, cancel_on_interrupt(cancel, lambda: progress.say("stopping after this step")):
        events = EventBus(progress)
        events.emit(StageStarted("train"))
        trainer = Trainer(
            config,
            config.objective.create(),
            config.learnable.create(),
            config.dataset.create(),
            events=events,
            cancel=cancel,
        )
        final = trainer.run(resume=resume)
    if trainer.accelerator.is_main_process:
        click.echo(str(final))
