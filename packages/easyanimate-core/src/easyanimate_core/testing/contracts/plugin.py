"""The contract of a whole distribution: what installing it may do to everybody else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final

from easyanimate_core.errors import PluginLoadError
from easyanimate_core.plugins import PluginStatus, active
from easyanimate_core.testing.contracts.contract import Contract, ensure, rule

if TYPE_CHECKING:
    from easyanimate_core.registry import Entry

__all__ = ["PluginContract"]

# Run in a fresh interpreter: tells which of these a listing, and then reading all options, has loaded.
_LISTING: Final = """
import json, sys
from easyanimate_core.plugins import active
heavy = {"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "av", "PIL", "numpy", "gradio"}
host = active()
listed = sorted(heavy & set(sys.modules))
for plugin in host.plugins:
    if plugin.distribution == sys.argv[1]:
        for entry in plugin.entries:
            if entry not in plugin.parked and entry.options:
                host.registries.named(entry.slot).options_model(entry.qualified)
print(json.dumps([listed, sorted(heavy & set(sys.modules))]))
"""


class PluginContract(Contract):
    """An installed plugin: it is adopted, costs nothing until it is used, and can be described.

    Attributes:
        distribution: its name, as `pip install` has it.
    """

    distribution: ClassVar[str] = ""

    def told(self, docstring: str, found: str) -> str:
        """As every contract, with the distribution's name."""
        return super().told(docstring, found).replace(f"'{type(self).__name__}'", f"'{self.distribution}'", 1)

    def statuses(self) -> list[PluginStatus]:
        """What the host says about the distribution's entry points."""
        found = [plugin for plugin in active().plugins if plugin.distribution == self.distribution]
        ensure(bool(found), f"no plugin of '{self.distribution}' is installed")
        return found

    def entries(self) -> list[Entry[Any]]:
        """What it registered, without what waits for a slot that nobody opens."""
        return [entry for plugin in self.statuses() for entry in plugin.entries if entry not in plugin.parked]

    @rule
    def test_it_is_adopted(self) -> None:
        """The plugin is loaded, and adds something.

        If this fails: the reason is that of `easyanimate plugins list`; an entry point names the module, in the group
        `easyanimate`.
        """
        for plugin in self.statuses():
            ensure(plugin.state == "loaded", f"'{plugin.name}' is {plugin.state}: {plugin.reason}")
            ensure(bool(plugin.entries or plugin.slots), f"'{plugin.name}' registers nothing and opens no slot")

    @rule
    def test_listing_it_loads_no_model_library(self) -> None:
        """Neither listing the plugin nor reading its options imports torch, numpy or another heavy library.

        If this fails: the plugin's module registers strings; options modules import pydantic and
        `easyanimate_core.schema` only. Look at what their packages' `__init__` imports.
        """
        command = [sys.executable, "-c", _LISTING, self.distribution]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        ensure(done.returncode == 0, f"listing fails: {done.stderr.strip()[-300:]}")
        listed, described = json.loads(done.stdout.splitlines()[-1])
        ensure(not listed, f"listing loads '{', '.join(listed)}'")
        ensure(not described, f"its options load '{', '.join(described)}'")

    @rule
    def test_every_target_is_there(self) -> None:
        """Every component imports, or needs an extra that its entry names.

        If this fails: correct the path in `registrar.add`, or say `requires=["extra"]`.
        """
        for entry in self.entries():
            registry = active().registries.named(entry.slot)
            try:
                registry.resource(entry.qualified) if registry.slot.data else registry.load(entry.qualified)
            except PluginLoadError as error:
                ensure(bool(entry.requires), error.message)

    @rule
    def test_every_component_has_a_summary(self) -> None:
        """Every component says in one short line what it is.

        If this fails: give `registrar.add` a `summary`; listings and forms show it.
        """
        for entry in self.entries():
            fine = 0 < len(entry.summary.strip()) <= 100 and "\n" not in entry.summary
            ensure(fine, f"the summary of '{entry.name}' is '{entry.summary}'")

    @rule
    def test_options_explain_themselves(self) -> None:
        """Every option has a docstring, and every options model exports a JSON Schema and refuses unknown keys.

        If this fails: write a docstring under the field, and inherit from `easyanimate_core.schema.Model`.
        """
        for entry in self.entries():
            model = active().registries.named(entry.slot).options_model(entry.qualified)
            if model is None:
                continue
            bare = [name for name, field in model.model_fields.items() if not field.description]
            ensure(not bare, f"the option '{(bare or [''])[0]}' of '{entry.name}' is not explained")
            ensure(model.model_config.get("extra") == "forbid", f"'{entry.name}' accepts options that it does not have")
            json.dumps(model.model_json_schema())

    @rule
    def test_every_name_is_its_own(self) -> None:
        """Every component is found by its qualified name, and by its plain name unless another one replaced it.

        If this fails: two distributions use one name; rename yours, or register it with `replaces=`.
        """
        for entry in self.entries():
            registry = active().registries.named(entry.slot)
            ensure(registry.get(entry.qualified) is entry, f"'{entry.qualified}' is another component")
            holder = registry.get(entry.name)
            ensure(holder is entry or bool(holder.replaces), f"'{entry.name}' means '{holder.qualified}'")
