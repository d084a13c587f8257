"""Typed registries of components that are found by name and imported only when built.

A registered component is strings: a slot, a name, the import path of its factory and of its options
model. Listing thirty plugins therefore imports none of their code.

```
Registrar.add(slot, name, target, …)      a plugin says what it has
      └─▶ Entry                           strings, with the owner set by the host
            └─▶ Registries.adopt          all entries of a plugin, or none
                  └─▶ registries[SAMPLERS].create("flow", {"shift": 3})   validate → import → build
```
"""

from __future__ import annotations

import importlib
import importlib.resources
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from easyanimate_core.errors import DuplicateComponent, InvalidOptions, PluginLoadError, UnknownComponent
from easyanimate_core.validation import did_you_mean, invalid

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from pydantic import BaseModel

__all__ = ["Entry", "Registrar", "Registries", "Registry", "Slot", "import_target"]

T = TypeVar("T")

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]*", re.IGNORECASE)
_TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_RESOURCE: Final = re.compile(r"[A-Za-z_][\w.]*:(?!.*\.\.)[\w][\w./+-]*")


@dataclass(frozen=True, slots=True)
class Slot(Generic[T]):
    """A kind of component, and the type that its components have.

    Attributes:
        name: plural, unique among installed plugins: `"samplers"`.
        summary: what its components do, as a short phrase.
        data: its targets are files of a package, `"package:folder/file.toml"`, and not code.
    """

    name: str
    summary: str
    data: bool = False


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered component: strings, not objects.

    Attributes:
        slot: name of its slot.
        name: what users call it; case does not matter.
        target: `"package.module:Factory"`.
        owner: distribution that registered it; set by the host, never by the plugin.
        options: import path of its pydantic options model, or `None`.
        aliases: other names, for example the class name in a released `config.json`.
        summary: one line for listings.
        requires: extras of the owner to install, named when the import fails.
        tags: facts that callers select by: `"inlet:camera"`, `"generation:v5.1"`, `"device:cuda"`.
        replaces: qualified name of the component whose names it takes over, or empty.
    """

    slot: str
    name: str
    target: str
    owner: str
    options: str | None = None
    aliases: tuple[str, ...] = ()
    summary: str = ""
    requires: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    replaces: str = ""

    @property
    def qualified(self) -> str:
        """`"owner:name"`: always valid, whatever else is installed."""
        return f"{self.owner}:{self.name}"


class Registrar:
    """What a plugin registers with. It only writes down; the host decides what is adopted."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._entries: list[Entry[Any]] = []

    @property
    def owner(self) -> str:
        """The distribution that is registering."""
        return self._owner

    @property
    def entries(self) -> tuple[Entry[Any], ...]:
        """What was added so far."""
        return tuple(self._entries)

    def add(
        self,
        slot: Slot[Any] | str,
        name: str,
        target: str,
        *,
        options: str | None = None,
        aliases: Iterable[str] = (),
        summary: str = "",
        requires: Iterable[str] = (),
        tags: Iterable[str] = (),
        replaces: str = "",
    ) -> None:
        """Register a component.

        Args:
            slot: a slot or its name. A slot that no installed plugin opens parks the entry.
            name: letters, digits and `. _ + -`.
            target: `"package.module:Factory"`, called with the options if the component has any; in a
                data slot `"package:folder/file.toml"`.
            options: import path of a pydantic model without a field `name`; its module should import
                pydantic only.
            aliases: other names, spelt as `name`.
            summary: one line for listings.
            requires: extras of this distribution that the component needs.
            tags: see `Entry`.
            replaces: `"owner:name"` of a component already registered, whose names this one takes over.

        Raises:
            PluginLoadError: a name or an import path is not well formed.
        """
        slot_name = slot if isinstance(slot, str) else slot.name
        for label in (name, *(aliases := tuple(aliases))):
            if not _NAME.fullmatch(label):
                raise PluginLoadError(
                    f"{self._owner} registers '{label}' in '{slot_name}', which is not a name",
                    "Use letters, digits and . _ + - and begin with a letter or digit.",
                )
        for path in (target, options):
            if path is not None and not (_TARGET.fullmatch(path) or _RESOURCE.fullmatch(path)):
                raise PluginLoadError(
                    f"{self._owner} registers '{name}' in '{slot_name}' with the path '{path}'",
                    "Write it as 'package.module:Attribute'.",
                )
        entry: Entry[Any] = Entry(
            slot_name, name, target, self._owner, options, aliases, summary, tuple(requires), frozenset(tags), replaces
        )
        self._entries.append(entry)


@dataclass(slots=True)
class Registry(Generic[T]):
    """The components of one slot.

    Attributes:
        slot: what is registered here.
        elsewhere: names that distributions known to the SDK provide, by name; for hints only.
    """

    slot: Slot[T]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    _entries: tuple[Entry[T], ...] = ()
    _names: Mapping[str, Entry[T]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name.casefold() in self._names

    @property
    def names(self) -> tuple[str, ...]:
        """Names that mean a component when said alone, without aliases, in order of registration."""
        return tuple(e.name for e in self._entries if self._names[e.name.casefold()] is e)

    def get(self, name: str) -> Entry[T]:
        """The entry of this name, alias or `owner:name`; case does not matter.

        Raises:
            UnknownComponent: nobody registered it; the hint says what is near, or where to get it.
        """
        found = self._names.get(name.strip().casefold())
        if found is None:
            raise UnknownComponent(f"no '{self.slot.name}' component is called '{name}'", self._where_to_find(name))
        return found

    def options_model(self, name: str) -> type[BaseModel] | None:
        """The pydantic model of a component's options, or `None` when it has none; imports only that.

        Raises:
            UnknownComponent: nobody registered the name.
            PluginLoadError: the model does not import, or is not one.
        """
        entry = self.get(name)
        if entry.options is None:
            return None
        from pydantic import BaseModel

        model = import_target(entry.options, entry)
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or "name" in model.model_fields:
            raise PluginLoadError(
                f"the options '{entry.options}' of '{entry.qualified}' are not a pydantic model without a field 'name'",
                f"Report it to the authors of {entry.owner}.",
            )
        return model

    def validate(self, name: str, options: Mapping[str, Any] | BaseModel | None = None) -> BaseModel | None:
        """A component's options, checked; defaults for what is not given. Does not import the component.

        Raises:
            UnknownComponent: nobody registered the name.
            InvalidOptions: the options do not fit.
        """
        from pydantic import ValidationError

        entry, model = self.get(name), self.options_model(name)
        if model is None:
            if options:
                given = options if isinstance(options, Mapping) else dict(options)
                raise InvalidOptions(
                    f"'{entry.name}' in '{self.slot.name}' has no options, but was given '{next(iter(given))}'",
                    "Leave the options out.",
                )
            return None
        try:
            return model.model_validate({} if options is None else options)
        except ValidationError as error:
            raise invalid(error, of=f"options of '{entry.name}' in '{self.slot.name}'") from error

    def load(self, name: str) -> Callable[..., T]:
        """Import a component's factory (a class, as a rule) without building it.

        Raises:
            UnknownComponent: nobody registered the name.
            PluginLoadError: it does not import; the hint names the extra to install.
        """
        entry = self.get(name)
        return cast("Callable[..., T]", import_target(entry.target, entry))

    def resource(self, name: str) -> Traversable:
        """The file behind an entry of a data slot.

        Raises:
            UnknownComponent: nobody registered the name.
            PluginLoadError: the file is not there.
        """
        entry = self.get(name)
        package, _, path = entry.target.partition(":")
        try:
            found = importlib.resources.files(package).joinpath(*path.split("/"))
        except ModuleNotFoundError as error:
            raise _does_not_load(entry, entry.target, error) from error
        if not found.is_file():
            raise PluginLoadError(f"'{entry.qualified}' has no file '{path}' in '{package}'", _reinstall(entry))
        return found

    def create(self, name: str, options: Mapping[str, Any] | BaseModel | None = None) -> T:
        """Validate the options, import the factory, build the component.

        The factory is called with its options model when it has one, else without arguments.

        Raises:
            UnknownComponent: nobody registered the name.
            InvalidOptions: the options do not fit.
            PluginLoadError: the component does not import.
        """
        checked = self.validate(name, options)
        factory = self.load(name)
        return factory() if checked is None else factory(checked)

    def _where_to_find(self, name: str) -> str:
        provider = self.elsewhere.get(name.strip().casefold())
        if provider is None and (near := did_you_mean(name, [*self.names, *self._aliases()])):
            return near
        known = f"Known: {', '.join(self.names)}." if self._entries else "None is installed."
        return f"{known} Installing {provider} provides it." if provider else known

    def _aliases(self) -> list[str]:
        return [alias for entry in self._entries for alias in entry.aliases]

    def _with(self, entry: Entry[T]) -> Registry[T]:
        """A copy that holds one more entry.

        Raises:
            DuplicateComponent: one of its names is taken.
            UnknownComponent: it replaces something that is not registered.
        """
        names = dict(self._names)
        replaced = self.get(entry.replaces) if entry.replaces else None
        for key, holder in self._names.items():
            # What it replaces stays reachable as owner:name.
            if holder is replaced and ":" not in key:
                names[key] = entry
        for label in (entry.name, *entry.aliases, entry.qualified):
            holder_now = names.setdefault(label.casefold(), entry)
            if holder_now is not entry:
                raise DuplicateComponent(*_clash(entry, holder_now, label))
        return Registry(self.slot, self.elsewhere, (*self._entries, entry), names)


class Registries:
    """All slots that are open, and their registries: `registries[SAMPLERS]`."""

    def __init__(self, elsewhere: Iterable[tuple[str, str, str]] = ()) -> None:
        """Start without slots.

        Args:
            elsewhere: `(slot, name, distribution)` of components that other distributions provide, for
                hints; an empty name says who opens the slot.
        """
        self._elsewhere = tuple(elsewhere)
        self._registries: dict[str, Registry[Any]] = {}
        self._openers: dict[str, str] = {}
        self._parked: list[Entry[Any]] = []

    def __getitem__(self, slot: Slot[T]) -> Registry[T]:
        """The registry of a slot.

        Raises:
            UnknownComponent: no installed plugin opens the slot.
        """
        return self.named(slot.name)

    def __iter__(self) -> Iterator[Registry[Any]]:
        return iter(self._registries.values())

    @property
    def slots(self) -> tuple[Slot[Any], ...]:
        """The open slots, in the order in which they were opened."""
        return tuple(registry.slot for registry in self)

    @property
    def parked(self) -> tuple[Entry[Any], ...]:
        """Entries for slots that nobody opens: harmless, and listed."""
        return tuple(self._parked)

    def named(self, slot: str) -> Registry[Any]:
        """The registry of a slot by the slot's name.

        Raises:
            UnknownComponent: no installed plugin opens the slot.
        """
        if slot not in self._registries:
            opener = next((who for where, name, who in self._elsewhere if where == slot and not name), None)
            known = f"Open: {', '.join(self._registries) or 'none'}."
            hint = f"Installing {opener} provides it." if opener else did_you_mean(slot, [*self._registries]) or known
            raise UnknownComponent(f"no slot is called '{slot}'", hint)
        return self._registries[slot]

    def open(self, slot: Slot[Any], owner: str) -> None:
        """Open a slot for components.

        Raises:
            DuplicateComponent: another distribution opened one of this name.
        """
        if slot.name in self._openers:
            raise DuplicateComponent(
                f"{owner} opens the slot '{slot.name}', but {self._openers[slot.name]} already does",
                f"Rename the slot in {owner}, or uninstall one of the two.",
            )
        names = {name: who for where, name, who in self._elsewhere if where == slot.name and name}
        self._registries[slot.name] = Registry(slot, names)
        self._openers[slot.name] = owner

    def adopt(self, entries: Sequence[Entry[Any]]) -> None:
        """Register all of a plugin's entries, or none of them.

        Raises:
            DuplicateComponent: a name is taken.
            UnknownComponent: one replaces something that is not registered.
        """
        changed: dict[str, Registry[Any]] = {}
        parked = []
        for entry in entries:
            registry = changed.get(entry.slot, self._registries.get(entry.slot))
            if registry is None:
                parked.append(entry)
            else:
                changed[entry.slot] = registry._with(entry)
        self._registries.update(changed)
        self._parked += parked


def import_target(path: str, entry: Entry[Any]) -> Any:
    """Import `"package.module:Attribute"` on behalf of an entry.

    Raises:
        PluginLoadError: the module does not import, or has no such attribute.
    """
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise _does_not_load(entry, path, error) from error
    return found


def _does_not_load(entry: Entry[Any], path: str, error: Exception) -> PluginLoadError:
    return PluginLoadError(f"'{entry.qualified}' did not load from '{path}': {error!r}", _reinstall(entry))


def _reinstall(entry: Entry[Any]) -> str:
    extras = f"[{','.join(entry.requires)}]" if entry.requires else ""
    return f"pip install -U '{entry.owner}{extras}'"


def _clash(entry: Entry[Any], holder: Entry[Any], label: str) -> tuple[str, str]:
    if entry.owner == holder.owner:
        message = f"{entry.owner} registers '{label}' in '{entry.slot}' twice"
        return message, f"Rename one of them in {entry.owner}."
    message = f"{entry.owner} registers '{label}' in '{entry.slot}', but {holder.owner} already does"
    return message, f'Rename it, or register it with replaces="{holder.qualified}".'
