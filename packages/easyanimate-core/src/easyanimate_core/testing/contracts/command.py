"""The contract of the slot `commands`."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any, ClassVar

from easyanimate_core.testing.contracts.contract import Contract, ensure, rule

__all__ = ["CommandContract"]


class CommandContract(Contract):
    """A subcommand: a click command that explains itself."""

    slot: ClassVar[str] = "commands"

    def create(self) -> Any:
        """The command itself: the target of its entry."""
        return self.registry().load(self.component)

    @rule
    def test_it_is_a_command(self) -> None:
        """The target is a click command, and not a function that makes one.

        If this fails: decorate it with `@click.command()`.
        """
        command = self.create()
        parts = ("main", "params", "get_help")
        ensure(all(hasattr(command, part) for part in parts), f"it is a '{type(command).__name__}'")

    @rule
    def test_it_explains_itself(self) -> None:
        """`--help` works, says what the command does, and explains every option.

        If this fails: the command's docstring is its help; options need `help=…`.
        """
        command, told = self.create(), io.StringIO()
        with redirect_stdout(told):
            command.main(["--help"], prog_name=self.entry().name, standalone_mode=False)
        ensure("Usage:" in told.getvalue(), f"it says '{told.getvalue()[:60]}'")
        ensure(bool((command.help or "").strip()), "it has no text")
        bare = [
            option.name
            for option in command.params
            if option.param_type_name == "option" and not (option.help or "").strip() and not option.hidden
        ]
        ensure(not bare, f"the option '{(bare or [''])[0]}' is not explained")
