"""`easyanimate nano`: make, score and export the embedded model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click

from easyanimate_core.cli.progress import RunProgress
from easyanimate_core.errors import InvalidRequest
from easyanimate_core.events import StageProgress, StageStarted

__all__ = ["command"]


@click.group()
def command() -> None:
    """Make and measure the embedded nano model."""


@command.command()
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's choice when left out.")
@click.pass_context
def make(ctx: click.Context, threads: int | None) -> None:
    """Train nano from nothing into runs/nano; goes on where an earlier call stopped."""
    from easyanimate_train.cli import command as train
    from easyanimate_train.nano.release import RECIPES, prepare

    prepare(Path("runs/nano"))
    for recipe, folder in RECIPES.items():
        run = Path("runs/nano") / folder
        if (run / "final").is_dir():
            continue
        click.echo(f"{recipe} …", err=True)
        ctx.invoke(train, recipe=recipe, settings=(), resume=any(run.glob("checkpoint-*")), threads=threads)


@command.command()
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Folder in the released layout; default: the package's."
)
@click.option("--model", default="nano", show_default=True, help="Preset of the weights.")
@click.option("--prompts", default=300, show_default=True, type=click.IntRange(1), help="Prompts per split.")
@click.option("--steps", type=click.IntRange(1), help="Denoising steps; default: the preset's.")
@click.option("--guidance", type=float, help="Guidance scale; default: the preset's.")
@click.option("--seed", default=0, show_default=True, help="Of scenes, wording and noise.")
@click.option("--chinese", is_flag=True, help="Ask in Chinese only.")
@click.option(
    "--trial",
    default="prompt",
    show_default=True,
    metavar="NAME",
    help="What is given: prompt, picture, ends, conflict, outline, camera, camera-picture.",
)
@click.option("--split", type=click.Choice(("seen", "held-out")), help="Only these combinations; default: both.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a Markdown table.")
def score(
    weights: Path | None,
    model: str,
    prompts: int,
    steps: int | None,
    guidance: float | None,
    seed: int,
    chinese: bool,
    trial: str,
    split: str | None,
    as_json: bool,
) -> None:
    """Generate videos for seen and never-trained combinations and count what their pixels show."""
    import easyanimate_core as ea
    from easyanimate_train.nano.score import SPLITS, Cases, score_prompts
    from easyanimate_train.nano.trials import TRIALS, score_trial

    if trial not in ("prompt", *TRIALS):
        raise InvalidRequest(f"there is no trial '{trial}'", f"Choose one of: prompt, {', '.join(TRIALS)}.")
    pipeline = ea.load(model, weights=weights)
    given = {"steps": steps, "guidance": guidance}
    settings = {name: value for name, value in given.items() if value is not None}
    rows = {}
    with RunProgress() as progress:
        progress(StageStarted("score"))
        splits = SPLITS if split is None else (split,)
        for number, part in enumerate(splits):
            seen = partial(_seen, progress, number * prompts, prompts * len(splits))
            if trial == "prompt":
                cases = Cases.draw(part, prompts, seed=seed, chinese=chinese)
                rows[part] = dict(score_prompts(pipeline, cases, seen, **settings))
            else:
                rows[part] = dict(score_trial(pipeline, trial, part, prompts, seed=seed, progress=seen, **settings))
    if as_json:
        said = {"trial": trial, "prompts": prompts, "seed": seed, **settings, "splits": rows}
        click.echo(json.dumps(said, indent=2))
        return
    columns = list(next(iter(rows.values())))
    click.echo("| split | " + " | ".join(columns) + " |")
    click.echo("|---" * (len(columns) + 1) + "|")
    for part, row in rows.items():
        click.echo(
            f"| {part} | " + " | ".join(f"{row[c]:.2f}" if c == "seconds" else f"{row[c]:.1f}" for c in columns) + " |"
        )


def _seen(progress: RunProgress, before: int, total: int, done: int) -> None:
    progress(StageProgress("score", before + done, total, "videos"))


@command.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--root", default=Path("runs/nano"), type=click.Path(path_type=Path), show_default=True, help="Runs.")
def export(target: Path, root: Path) -> None:
    """Write the trained models into TARGET as float16, each in the layout of a released checkpoint."""
    from easyanimate_train.nano.release import export as write

    total = write(root, target, say=lambda line: click.echo(line, err=True))
    click.echo(f"{total:,} bytes in {target}")
