"""`easyanimate completion`: the lines that teach a shell to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]


@click.command("completion", short_help="print the completion script of a shell")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  easyanimate completion bash >> ~/.bashrc
    zsh:   easyanimate completion zsh  >> ~/.zshrc
    fish:  easyanimate completion fish > ~/.config/fish/completions/easyanimate.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click knows these three
    group = ctx.find_root().command
    click.echo(kind(group, {}, "easyanimate", "_EASYANIMATE_COMPLETE").source())
