"""The command `easyanimate`. Every subcommand is an entry of the slot `commands`, core's own included."""

from __future__ import annotations

__all__: list[str] = []
