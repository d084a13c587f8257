"""What all contracts share: rules, how a broken one is told, and the guard over them.

A contract is a class of tests. Every test is a rule: its docstring begins with the rule in one sentence and ends with
what to look at, *If this fails*; both stand in the message of a failure.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Final, ParamSpec, TypeVar, cast

import torch

from easyanimate_core.plugins import active

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor

    from easyanimate_core.registry import Entry, Registry

__all__ = ["Contract", "can", "close", "draw", "ensure", "rule", "rules_of"]

C = TypeVar("C", bound="Contract")
P = ParamSpec("P")

_MARK: Final = "easyanimate_rule"


class _Found(AssertionError):
    """What a rule found, before it is told as a sentence."""


def ensure(ok: bool | torch.Tensor, found: str) -> None:
    """Go on when something holds.

    Args:
        ok: whether it does.
        found: what was found instead, with the value in quotes.

    Raises:
        AssertionError: it does not.
    """
    if not bool(ok):
        raise _Found(found)


def can(component: Any, capability: type) -> bool:
    """Whether a component has an optional capability of `easyanimate_core.interfaces`."""
    return isinstance(component, capability)


def close(got: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Go on when two tensors have one shape and differ nowhere by more than `tolerance`.

    Args:
        got: what the component made.
        wanted: what it should be.
        tolerance: largest difference of an element; 0 compares bit by bit.
        what: the tensor's name in the message.

    Raises:
        AssertionError: they differ; says by how much.
    """
    ensure(got.shape == wanted.shape, f"{what} has the shape '{tuple(got.shape)}' instead of {tuple(wanted.shape)}")
    if got.numel() == 0:
        return
    difference = (got.double() - wanted.double()).abs().max().item()
    ensure(difference <= tolerance, f"{what} differs by '{difference:.3g}' (allowed: {tolerance:g})")


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Unit normal numbers of a shape, the same in every run; float32 on the CPU."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rule(test: Callable[Concatenate[C, P], None]) -> Callable[Concatenate[C, P], None]:
    """Make a method of a contract a rule: what it finds is told with the component's name, the rule and the advice."""

    @functools.wraps(test)
    def told(self: C, *args: P.args, **kwargs: P.kwargs) -> None:
        __tracebackhide__ = True
        try:
            test(self, *args, **kwargs)
        except _Found as found:
            raise AssertionError(self.told(inspect.getdoc(test) or test.__name__, str(found))) from None
        except Exception as error:
            error.add_note(self.told(inspect.getdoc(test) or test.__name__, "the error above"))
            raise

    setattr(told, _MARK, True)
    return cast("Callable[Concatenate[C, P], None]", told)


def rules_of(contract: type[Contract]) -> tuple[tuple[str, str], ...]:
    """The rules of a contract in the order in which they are written: name of the test, and the rule."""
    kinds = [kind for kind in reversed(contract.__mro__) if issubclass(kind, Contract)]
    named = {name: value for kind in kinds for name, value in vars(kind).items() if _is_rule(value)}
    return tuple((name, _sentence(inspect.getdoc(test) or "")) for name, test in named.items())


class Contract:
    """Base of all contracts. Inherit from one of them, say which component, and let pytest collect the class.

    A rule may not be overridden or deleted, except by a method marked `@pytest.mark.xfail(reason="…")`: a contract
    with a hole would not be one.

    Attributes:
        slot: name of the slot.
        component: registered name, best as `owner:name`; the component is built from it by `create`.
        options: what it is built with: its options model, or a mapping.
    """

    slot: ClassVar[str] = ""
    component: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any] | BaseModel] = MappingProxyType({})

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name, value in vars(cls).items():
            broken = any(_is_rule(vars(base).get(name)) for base in cls.__mro__[1:])
            if broken and not _is_excused(value):
                raise TypeError(
                    f"{cls.__name__} overrides the rule '{name}': mark it with @pytest.mark.xfail(reason=\"…\")"
                )

    @classmethod
    def registry(cls) -> Registry[Any]:
        """The registry of the slot, in the active host."""
        return active().registries.named(cls.slot)

    @classmethod
    def entry(cls) -> Entry[Any]:
        """What the component's distribution registered.

        Raises:
            UnknownComponent: nobody registered the name.
        """
        return cls.registry().get(cls.component)

    def create(self) -> Any:
        """A new component, from its registered name and `options`; override it for one that needs more."""
        return self.registry().create(self.component, self.options or None)

    def told(self, docstring: str, found: str) -> str:
        """What a failure says: who broke which rule, what was found, and the advice of the rule."""
        who = f"'{self.component}' in '{self.slot}'" if self.component else f"'{type(self).__name__}'"
        advice = docstring[docstring.find("If this fails") :] if "If this fails" in docstring else ""
        lines = [f"{who} breaks a rule: {_sentence(docstring)}", f"Found: {found}", " ".join(advice.split())]
        return "\n".join(line for line in lines if line)


def _sentence(docstring: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(docstring.split("\n\n")[0].split())


def _is_rule(value: object) -> bool:
    return getattr(value, _MARK, False) is True


def _is_excused(value: object) -> bool:
    """Whether a method is marked as an expected failure with a reason."""
    marks = getattr(value, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
