"""The shape of every document that a person writes: strict models, `Choice`, `Hint`, JSON Schema.

A document is a pydantic model whose attribute docstrings are its help texts. From it come the command-line
flags, the forms of the UI, the HTTP body and the ComfyUI nodes; core itself knows none of these.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from easyanimate_core.errors import ConfigError, InvalidOptions, PluginLoadError
from easyanimate_core.plugins import active
from easyanimate_core.registry import Registry, Slot
from easyanimate_core.validation import did_you_mean, invalid

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from easyanimate_core.registry import Entry

__all__ = ["Among", "Choice", "Hint", "Model", "export_schema", "parse"]

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class Model(BaseModel):
    """Base of all documents and options: unknown keys are errors, instances never change, and the docstring
    under an attribute is its help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _only_known_settings(cls, data: Any) -> Any:
        """`extra="forbid"` with a suggestion, at any depth."""
        if not isinstance(data, Mapping):
            return data
        known = [info.alias or name for name, info in cls.model_fields.items()]
        unknown = [key for key in data if key not in known]
        if unknown:
            raise ValidationError.from_exception_data(
                cls.__name__, [_unknown(key, data[key], known) for key in unknown]
            )
        return data


@dataclass(frozen=True, slots=True)
class Hint:
    """How a form may show a field; put it into `Annotated`. Exported as `x-hint`.

    Attributes:
        unit: of a number: `"px"`, `"steps"`.
        widget: overrides the widget that the type suggests: `"number"`.
        media: `"image"`, `"video"` or `"file"`, for paths.
        lines: height of a text box.
        advanced: show it folded away.
        flag: short name on the command line of an option inside a component: `"start-image"`.
    """

    unit: str = ""
    widget: str = ""
    media: str = ""
    lines: int = 1
    advanced: bool = False
    flag: str = ""

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        default = asdict(Hint())
        said = {name: value for name, value in asdict(self).items() if value != default[name]}
        return {**handler(schema), "x-hint": said}


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """A component by name, with its options checked. What a field `Annotated[Choice[T], Among(SLOT)]` holds.

    Attributes:
        slot: where the component is registered.
        name: its registered name, without owner.
        owner: the distribution that registered it.
        options: its options, or `None` when it has none.
    """

    slot: Slot[T]
    name: str
    owner: str
    options: BaseModel | None = None

    @classmethod
    def of(cls, slot: Slot[T], value: object) -> Choice[T]:
        """Read a choice from any of its spellings.

        Args:
            slot: where to look.
            value: `"flow"`, `{"name": "flow", "shift": 3}`, `FlowOptions(shift=3)` or a choice.

        Raises:
            UnknownComponent: nobody registered the name.
            ValidationError: the options do not fit (pydantic's own error, with the path below the choice).
            ValueError: the value is none of the spellings, or options that several components share.
        """
        registry = active().registries[slot]
        options: Mapping[str, Any] | BaseModel | None
        if isinstance(value, Choice):
            name, options = value.qualified, value.options
        elif isinstance(value, BaseModel):
            name, options = _owner_of_options(registry, value), value
        elif isinstance(value, str):
            name, options = value, None
        elif isinstance(value, Mapping) and isinstance(value.get("name"), str):
            name, options = value["name"], {key: item for key, item in value.items() if key != "name"}
        else:
            raise ValueError("must be a component's name, or an object with 'name' and its options")
        entry = registry.get(name)
        return cls(slot, entry.name, entry.owner, _checked(registry, entry, options))

    @property
    def qualified(self) -> str:
        """`"owner:name"`: what is saved, so that it means the same on another machine."""
        return f"{self.owner}:{self.name}"

    def create(self) -> T:
        """Build the component.

        Raises:
            PluginLoadError: it does not import.
        """
        return active().registries[self.slot].create(self.qualified, self.options)

    @property
    def given(self) -> dict[str, Any]:
        """Those options that were said; the others are for the checkpoint, then for their defaults, to decide."""
        return {} if self.options is None else self.options.model_dump(exclude_unset=True)

    def as_json(self) -> str | dict[str, Any]:
        """The qualified name, or an object of it and the options that were given; `of` reads it back."""
        given = {} if self.options is None else self.options.model_dump(mode="json", exclude_unset=True)
        return {"name": self.qualified, **given} if given else self.qualified

    def in_full(self) -> str | dict[str, Any]:
        """The same with all options, defaults too: for records of what was done."""
        if self.options is None:
            return self.qualified
        return {"name": self.qualified, **self.options.model_dump(mode="json", exclude_none=True)}


@dataclass(frozen=True, slots=True)
class Among:
    """Binds a field to a slot: `sampler: Annotated[Choice[Sampler], Among(SAMPLERS)]`."""

    slot: Slot[Any]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: Choice.of(self.slot, value),
            serialization=core_schema.plain_serializer_function_ser_schema(Choice.as_json),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        registry = active().registries[self.slot]
        entries = [registry.get(name) for name in registry.names]
        objects = [_options_schema(registry, entry, handler) for entry in entries]
        # Plain names first: a form lists those.
        spellings = dict.fromkeys([*registry.names, *(label for entry in entries for label in _labels(entry))])
        name: JsonSchemaValue = {"type": "string", "enum": list(spellings)}
        return {"anyOf": [name, *(form for form in objects if form is not None)], "x-slot": self.slot.name}


def parse(model: type[M], data: object, error: type[ConfigError] = InvalidOptions, *, of: str = "") -> M:
    """Read a document, with the SDK's own one-line error.

    Args:
        model: what it should be.
        data: a mapping, an instance, or a JSON text.
        error: class of the error.
        of: what is being read, put in front of the message: `"preset 'nano'"`.

    Raises:
        ConfigError: of the given class, when the document does not fit.
    """
    try:
        if isinstance(data, str | bytes):
            return model.model_validate_json(data)
        return model.model_validate(data)
    except ValidationError as found:
        raise invalid(found, error, of=of) from found


def export_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema (2020-12) of what `parse` reads, with the options of every installed component.

    It imports options models but no component. It depends on the active host: what is installed is described.
    """
    return {"$schema": _DIALECT, **model.model_json_schema(mode="validation")}


def _unknown(key: object, value: object, known: list[str]) -> InitErrorDetails:
    hint = did_you_mean(str(key), known) or (f"Known: {', '.join(known)}." if known else "It has no settings.")
    problem = PydanticCustomError("unknown_setting", "There is no such setting. {hint}", {"hint": hint})
    return InitErrorDetails(type=problem, loc=(str(key),), input=value)


def _checked(registry: Registry[Any], entry: Entry[Any], options: object) -> BaseModel | None:
    model = registry.options_model(entry.qualified)
    if model is not None:
        return model.model_validate({} if options is None else options)
    if isinstance(options, Mapping) and options:
        raise ValidationError.from_exception_data(entry.name, [_unknown(key, options[key], []) for key in options])
    return None


def _owner_of_options(registry: Registry[Any], options: BaseModel) -> str:
    """Name of the one component whose options model is the class of `options`."""
    kind = type(options)
    found = [entry.qualified for entry in registry if entry.options and _is_class(kind, entry.options)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"'{kind.__name__}' are options of several components ({', '.join(found)}): name one")
    raise ValueError(f"'{kind.__name__}' are not options of an installed component in '{registry.slot.name}'")


def _is_class(kind: type, path: str) -> bool:
    """Whether an import path means this class, without importing anything new."""
    module, _, name = path.partition(":")
    return (kind.__module__, kind.__qualname__) == (module, name) or getattr(
        sys.modules.get(module), name, None
    ) is kind


def _labels(entry: Entry[Any]) -> tuple[str, ...]:
    return (entry.name, *entry.aliases, entry.qualified)


def _options_schema(
    registry: Registry[Any], entry: Entry[Any], handler: GetJsonSchemaHandler
) -> JsonSchemaValue | None:
    """The object form of a component: its options and its name.

    Goes through pydantic's handler: an embedded `model_json_schema()` would leave its `$defs` behind.
    """
    try:
        model = registry.options_model(entry.qualified)
    except PluginLoadError:
        # A broken plugin must not hide the others; using the component says what is wrong.
        return None
    summary = {"description": entry.summary} if entry.summary else {}
    if model is None:
        options: JsonSchemaValue = {"type": "object", "additionalProperties": False}
    else:
        options = dict(handler.resolve_ref_schema(handler(model.__pydantic_core_schema__)))
    properties = {"name": {"type": "string", "enum": list(_labels(entry))}, **options.get("properties", {})}
    required = ["name", *options.get("required", [])]
    return {**options, "title": entry.name, **summary, "properties": properties, "required": required}
