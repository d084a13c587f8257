"""Rule 4: `__all__` is what a module offers, and everything in it is explained."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator

import pytest

from workspace import Module, modules

PUBLIC = [module for module in modules() if module.is_public]


def declared(tree: ast.Module) -> list[str] | None:
    """The literal `__all__`, or None."""
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return list(ast.literal_eval(statement.value))  # type: ignore[attr-defined]
    return None


def is_type_variable(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and getattr(value.func, "id", "") in ("TypeVar", "ParamSpec", "TypeVarTuple")


def is_subcommand(function: ast.stmt) -> bool:
    """Whether a function belongs to a click group, `@command.command(…)`: the group is what the module offers."""
    decorators = [getattr(decorator, "func", decorator) for decorator in getattr(function, "decorator_list", [])]
    return any(
        isinstance(decorator, ast.Attribute) and decorator.attr == "command" and ast.unparse(decorator.value) != "click"
        for decorator in decorators
    )


def definitions(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Public names that a module defines, and whether a docstring explains them."""
    following = [*tree.body[1:], None]
    for statement, after in zip(tree.body, following, strict=False):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [] if is_subcommand(statement) else [statement.name]
            explained = bool(ast.get_docstring(statement))
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and not is_type_variable(statement.value):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            explained = isinstance(after, ast.Expr) and isinstance(getattr(after.value, "value", None), str)
        else:
            continue
        yield from ((name, explained) for name in names if not name.startswith("_"))


def imported(tree: ast.Module, root: str) -> set[str]:
    """Public names that a module takes from those under `root`."""
    taken = [node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(root)]
    names = {alias.asname or alias.name for node in taken for alias in node.names}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("module", PUBLIC, ids=str)
def test_all_is_what_the_module_offers(module: Module):
    offers = declared(module.tree)
    defined = {name for name, _ in definitions(module.tree)}
    if offers is None:
        assert not defined, f"{module} defines {sorted(defined)} and has no __all__"
        return
    assert len(offers) == len(set(offers)), f"{module}: a name stands twice in __all__"
    public = {name for name in offers if not name.startswith("_")}
    assert defined <= public, f"{module}: {sorted(defined - public)} should be in __all__, or begin with _"
    if module.is_package:
        beside = imported(module.tree, module.name)
        assert beside <= public, f"{module} imports {sorted(beside - public)} without offering it"
    else:
        known = defined | imported(module.tree, module.name.partition(".")[0])
        assert public <= known, f"{module} offers {sorted(public - known)}, which it does not have"


@pytest.mark.parametrize("module", PUBLIC, ids=str)
def test_everything_public_is_explained(module: Module):
    assert ast.get_docstring(module.tree), f"{module} has no docstring"
    bare = [name for name, explained in definitions(module.tree) if not explained]
    assert not bare, f"{module}: {bare} need a docstring (after the line, for a constant)"


@pytest.mark.parametrize("module", [module for module in PUBLIC if declared(module.tree)], ids=str)
def test_what_is_offered_is_there(module: Module):
    """Also for names that a package resolves lazily."""
    loaded = importlib.import_module(module.name)
    missing = [name for name in declared(module.tree) or [] if not hasattr(loaded, name)]
    assert not missing


@pytest.mark.parametrize("module", modules(), ids=str)
def test_nobody_takes_what_is_not_offered(module: Module):
    """A name with an underscore stays in its module."""
    taken = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("easyanimate_")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert not taken
