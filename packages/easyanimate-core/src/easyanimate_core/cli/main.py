"""The entry point: a lazy group over the slot `commands`, and every error as one line and a hint.

`--help` lists commands by their registered summaries; a command's module is imported when it is used.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, Final

import click

from easyanimate_core.errors import Cancelled, EasyAnimateError, PluginLoadError, UnknownComponent
from easyanimate_core.plugins import active
from easyanimate_core.plugins.siblings import SIBLINGS
from easyanimate_core.slots import COMMANDS

__all__ = ["CommandGroup", "cli", "main", "run"]

_USAGE: Final = 2  # the status of a wrong command line, as for other errors of configuration
_UNEXPECTED: Final = 1


class CommandGroup(click.Group):
    """Subcommands are entries of the slot `commands`; their targets are click commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in order of registration, core's first."""
        return list(active().registries[COMMANDS].names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; `None` when nobody registered it.

        Raises:
            PluginLoadError: it does not import, or is no click command.
        """
        registry = active().registries[COMMANDS]
        if cmd_name not in registry:
            return None
        command: Any = registry.load(cmd_name)
        if not isinstance(command, click.Command):
            entry = registry.get(cmd_name)
            what = f"'{entry.target}' of the command '{entry.qualified}' is no click command"
            raise PluginLoadError(what, f"Report it to the authors of {entry.owner}.")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown command is answered with a suggestion.

        Raises:
            UnknownComponent: nobody registered the command; the hint says what is near, or where to get it.
        """
        if not ctx.resilient_parsing and not args[0].startswith("-"):
            try:
                active().registries[COMMANDS].get(args[0])
            except UnknownComponent as error:
                begun = [name for name in self.list_commands(ctx) if name.startswith(args[0].casefold())]
                hint = f"Did you mean '{begun[0]}'?" if len(begun) == 1 else error.hint
                raise UnknownComponent(f"no command is called '{args[0]}'", hint) from error
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the registered summaries; imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.summary) for entry in active().registries[COMMANDS]])


@click.command(
    "easyanimate",
    cls=CommandGroup,
    epilog="Exit status: 0 done, 1 unexpected error, 2 wrong request or plugin, 3 checkpoint, 4 failed or cancelled.",
)
@click.version_option(package_name="easyanimate-core", prog_name="easyanimate", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show stack traces of errors; may stand anywhere.")
def cli() -> None:
    """Make videos from text, pictures and motions.

    Begin with: easyanimate generate "a red circle moving right on a blue background" --output demo.mp4 --scale 4
    """


def run(args: Sequence[str]) -> int:
    """Run one command line and report errors on stderr.

    Args:
        args: what follows the program's name.

    Returns:
        The exit status: 0, or as `easyanimate --help` says.
    """
    arguments, debug = _without_debug(args)
    try:
        with warnings.catch_warnings():
            if not debug and not sys.warnoptions:
                warnings.simplefilter("ignore")  # libraries warn their programmers; a user cannot act on it
            status = cli.main(arguments, prog_name="easyanimate", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # `… | head` closed the pipe. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNEXPECTED
    except (KeyboardInterrupt, click.Abort) as error:
        return _report("cancelled", "", Cancelled.exit_code, error if debug else None)
    except EasyAnimateError as error:
        return _report(error.message, error.hint, error.exit_code, error if debug else None)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return _USAGE
    except click.ClickException as error:
        return _report_usage(error)
    # The last resort: whatever it is, a person gets one line and a way to see more.
    except Exception as error:  # noqa: BLE001
        message = f"unexpected {type(error).__name__}: {' '.join(str(error).split()) or 'without a message'}"
        return _report(message, "Run again with --debug to see where.", _UNEXPECTED, error if debug else None)
    return status if isinstance(status, int) else 0


def main() -> None:
    """What the console script `easyanimate` calls."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an old code page has no '…'; that must not stop a run
    sys.exit(run(sys.argv[1:]))


def _without_debug(args: Sequence[str]) -> tuple[list[str], bool]:
    """Take `--debug` out wherever it stands before `--`: people add it at the end after an error."""
    end = args.index("--") if "--" in args else len(args)
    kept = [arg for arg in args[:end] if arg != "--debug"]
    return [*kept, *args[end:]], len(kept) < end


def _report(message: str, hint: str, status: int, shown: BaseException | None = None) -> int:
    if shown is not None:
        click.echo("".join(traceback.format_exception(shown)), err=True, nl=False)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {hint}", err=True)
    return status


def _report_usage(error: click.ClickException) -> int:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"See '{context.command_path if context else 'easyanimate'} --help'."
    if isinstance(error, click.NoSuchOption) and (provider := _provider_of(error.option_name)):
        hint = f"Installing {provider} provides it."
    return _report(message[:1].lower() + message[1:], hint, _USAGE)


def _provider_of(option: str) -> str | None:
    """The distribution whose condition an unknown option belongs to, as `--camera-move` does to `camera`."""
    said = option.lstrip("-")
    found = (
        distribution
        for slot, name, distribution in SIBLINGS
        if slot == "conditioners" and name and (said == name or said.startswith(f"{name}-"))
    )
    return next(found, None)
