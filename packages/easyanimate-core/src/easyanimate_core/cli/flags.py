"""Command-line options from a document's fields: the flags of `generate` are `GenerationRequest`, read here.

A field becomes `--field-name`, its docstring the help text, its unit the placeholder. Options of components that a
field lists (`conditions`) get a flag too where their `Hint` names one. Values stay text and are checked where the
document is, so that a flag, a job file and an HTTP body get the same answer.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt

from easyanimate_core.errors import InvalidOptions, PluginLoadError
from easyanimate_core.plugins import active
from easyanimate_core.schema import Among, Hint

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

__all__ = ["options_of", "values_given"]

_PLACEHOLDERS: Final[Mapping[Any, str]] = {int: "INTEGER", float: "NUMBER", str: "TEXT"}


def options_of(model: type[BaseModel], *, skip: Iterable[str] = ()) -> Callable[[click.Command], click.Command]:
    """A decorator that gives a command one option per field of a document.

    Fields that hold many values get a repeatable option. Use it above `@click.command`, so that a command's own
    options come first in its help.

    Args:
        model: the document.
        skip: names of fields that the command takes in another way.
    """
    options = [_option(name, info) for name, info in model.model_fields.items() if name not in set(skip)]
    options += [_short(*found) for found in _short_flags(model)]

    def add(command: click.Command) -> click.Command:
        command.params.extend(options)
        return command

    return add


def values_given(model: type[BaseModel], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The document that the given flags write; flags that were not given are left out.

    Args:
        model: the document that `options_of` was called with.
        flags: click's parameters by name.

    Raises:
        InvalidOptions: a component is written as an object that is not valid JSON.
    """
    document: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = flags.get(name)
        if value is None or value == ():
            continue
        if _traits(info).slot is not None:
            value = [_component(name, item) for item in value] if isinstance(value, tuple) else _component(name, value)
        document[name] = list(value) if isinstance(value, tuple) else value
    for name, component, option, _ in _short_flags(model):
        value = flags.get(_parameter(name, component, option))
        if value is not None and value != ():
            _put(document.setdefault(name, []), component, option, list(value) if isinstance(value, tuple) else value)
    return document


def _put(components: list[Any], component: str, option: str, value: Any) -> None:
    """Set an option of a listed component, which is listed now if it was not."""
    for index, listed in enumerate(components):
        if (listed if isinstance(listed, str) else listed.get("name")) == component:
            components[index] = {"name": component, **(listed if isinstance(listed, dict) else {}), option: value}
            return
    components.append({"name": component, option: value})


class _Traits:
    """What a field's annotation says about its flag."""

    def __init__(self) -> None:
        self.kinds: list[Any] = []
        self.unit = ""
        self.flag = ""
        self.media = ""
        self.slot: Any = None
        self.many = False
        self.lowest: str = ""
        self.highest: str = ""

    def read(self, annotation: Any, metadata: Iterable[Any] = ()) -> _Traits:
        """Collect from an annotation and all that it wraps."""
        for said in metadata:
            self._read_one(said)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self.read(arguments[0], arguments[1:])
        if origin in (Union, types.UnionType):
            for argument in arguments:
                self.read(argument)
        elif origin is tuple:
            # Either "one or many" (a union) or a true list; only the latter repeats its flag.
            self.many = not self.kinds
            self.read(arguments[0])
        elif annotation is not type(None):
            self.kinds.append(origin or annotation)
        return self

    def _read_one(self, said: Any) -> None:
        match said:
            case Hint():
                self.unit, self.flag, self.media = said.unit or self.unit, said.flag, said.media
            case Among(slot):
                self.slot = slot
            case Ge(bound):
                self.lowest = f"{bound}"
            case Gt(bound):
                self.lowest = f"above {bound}"
            case Le(bound):
                self.highest = f"{bound}"
            case Lt(bound):
                self.highest = f"below {bound}"
            case _:
                for inner in getattr(said, "metadata", ()):  # a pydantic FieldInfo inside Annotated
                    self._read_one(inner)


def _traits(info: FieldInfo) -> _Traits:
    return _Traits().read(info.annotation, info.metadata)


def _option(name: str, info: FieldInfo) -> click.Option:
    traits = _traits(info)
    flag = f"--{name.replace('_', '-')}"
    if traits.kinds == [bool]:
        return click.Option([f"{flag}/--no-{name.replace('_', '-')}"], default=None, help=_help(info, traits))
    if traits.many:
        flag = flag.removesuffix("s")
    return click.Option(
        [name, flag], multiple=traits.many, metavar=_placeholder(traits), help=_help(info, traits), default=None
    )


def _short_flags(model: type[BaseModel]) -> Iterator[tuple[str, str, str, FieldInfo]]:
    """Options with a flag of their own: field of the document, component, option, and what is known about it.

    Of two components that want one flag the first has it: core's, then by distribution.
    """
    taken: set[str] = set()
    for name, info in model.model_fields.items():
        traits = _traits(info)
        if traits.slot is None or not traits.many:
            continue
        registry = active().registries[traits.slot]
        for component in registry.names:
            try:
                options = registry.options_model(component)
            except PluginLoadError:
                continue  # a broken plugin must not hide the others; using the component says what is wrong
            for option, inner in ({} if options is None else options.model_fields).items():
                flag = _traits(inner).flag
                if flag and flag not in taken:
                    taken.add(flag)
                    yield name, component, option, inner


def _short(name: str, component: str, option: str, info: FieldInfo) -> click.Option:
    traits = _traits(info)
    return click.Option(
        [_parameter(name, component, option), f"--{traits.flag}"],
        multiple=traits.many,
        metavar=_placeholder(traits),
        help=f"{_help(info, traits)} Sets '{option}' of --{name.removesuffix('s')} {component}.",
        default=None,
    )


def _parameter(name: str, component: str, option: str) -> str:
    """Name of click's parameter."""
    return f"{name}__{component.replace('-', '_')}__{option}"


def _placeholder(traits: _Traits) -> str:
    if traits.slot is not None:
        return "NAME|JSON"
    if traits.media:
        return "PATH"
    if any("height" in getattr(kind, "model_fields", {}) for kind in traits.kinds):
        return "HEIGHTxWIDTH"
    if traits.unit:
        return traits.unit.upper()
    return next((_PLACEHOLDERS[kind] for kind in traits.kinds if kind in _PLACEHOLDERS), "VALUE")


def _help(info: FieldInfo, traits: _Traits) -> str:
    """The field's docstring, and what it leaves out: range, default, installed names."""
    text = " ".join((info.description or "").split()).replace("`", "'")
    if traits.slot is not None:
        text += f" Installed: {', '.join(active().registries[traits.slot].names) or 'none'}."
    bounds = [bound for bound in (traits.lowest, traits.highest) if bound]
    if "…" not in text and not all(bound.split()[-1] in text for bound in bounds):
        text += f" Range: {traits.lowest or '-∞'}…{traits.highest or '∞'}."
    if "default" not in text.casefold() and not info.is_required():
        text += f" Default: {info.get_default()}."
    return text.strip()


def _component(name: str, text: str) -> Any:
    """`flow`, or `{"name": "flow", "shift": 3}`."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        what = f"'{name}' is '{text}', which is not valid JSON: {error}"
        raise InvalidOptions(what, 'Write it as \'{"name": "flow", "shift": 3}\'.') from error
