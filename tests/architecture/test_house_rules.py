"""Rule 3: sizes, and what no file may contain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from workspace import ROOT, Module, modules, python_files

MOST_LINES = 500
MOST_LINES_OF_A_FUNCTION = 60
MOST_BYTES_OF_GOLDENS = 8_000_000
NAMES_OF_CONTROL = {"control", "control-video", "camera", "trajectory", "easyanimate-control", "easyanimate_control"}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
CONTAINERS = {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque", "WeakKeyDictionary"}
MUTATORS = {"add", "append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}

FILES = python_files()
MODULES = modules()


def place(path: Path, node: ast.AST | None = None) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def everything() -> Iterator[tuple[Path, ast.AST]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            yield path, node


def in_packages() -> Iterator[tuple[Module, ast.AST]]:
    for module in MODULES:
        for node in ast.walk(module.tree):
            yield module, node


def test_there_is_something_to_check():
    assert len(MODULES) > 4
    assert len(FILES) > len(MODULES)


def test_no_file_is_longer_than_500_lines():
    lengths = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: length for path, length in lengths.items() if length > MOST_LINES}


def test_recorded_outputs_stay_small():
    """A clone brings them all. Pack a new case as the others are: see tests/golden.py."""
    sizes = {path: path.stat().st_size for path in (ROOT / "tests" / "goldens").rglob("*") if path.is_file()}
    assert 0 < sum(sizes.values()) <= MOST_BYTES_OF_GOLDENS


def test_the_pipeline_knows_no_generation_by_name():
    """What differs between models is a line of a preset, a setting of a config, or a capability of a component."""
    pipeline = [module for module in MODULES if module.name.startswith("easyanimate_core.pipeline")]
    assert pipeline
    lines = {
        f"{place(module.path)[:-2]}:{number}": line
        for module in pipeline
        for number, line in enumerate(module.path.read_text(encoding="utf-8").splitlines(), 1)
    }
    assert not {where: line for where, line in lines.items() if re.search("[vV][1-5]", line)}


def test_core_decides_nothing_by_the_names_of_control():
    """What a plugin brings is data to core: names in presets and in hints, never a branch."""
    core = [(module, node) for module, node in in_packages() if module.name.startswith("easyanimate_core")]
    asked = [(module, node) for module, node in core if isinstance(node, ast.Compare | ast.MatchValue)]
    assert asked
    assert not [
        place(module.path, node)
        for module, node in asked
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and part.value in NAMES_OF_CONTROL
    ]


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring: that may be as long as the contract needs."""
    end = function.end_lineno or function.lineno
    lines = end - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_no_function_is_longer_than_60_lines():
    long = {
        f"{place(path, node)} {node.name}": code_lines(node)
        for path, node in everything()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > MOST_LINES_OF_A_FUNCTION
    }
    assert not long


def test_no_module_has_a_name_that_says_nothing():
    named = [
        place(path) for path in FILES if EMPTY_NAMES & {path.stem, path.parent.name} and path.parent.name != "tools"
    ]
    assert not named


def test_no_bare_except():
    bare = [place(path, node) for path, node in everything() if isinstance(node, ast.ExceptHandler) and not node.type]
    assert not bare


def test_packages_do_not_print():
    calls = [
        place(module.path, node)
        for module, node in in_packages()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls


def loads_a_pickle(node: ast.AST) -> bool:
    """`torch.load(…)` without `weights_only=True`, or anything of pickle's."""
    if not (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("load", "loads")
    ):
        return False
    owner = node.func.value
    if not isinstance(owner, ast.Name) or owner.id not in ("torch", "pickle", "dill", "joblib"):
        return False
    safe = any(
        keyword.arg == "weights_only" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in node.keywords
    )
    return owner.id != "torch" or not safe


def test_no_file_is_read_in_a_way_that_runs_its_code():
    assert not [place(module.path, node) for module, node in in_packages() if loads_a_pickle(node)]


# --- no mutable module global -------------------------------------------------------------------------


def makes_a_container(value: ast.expr | None) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    if isinstance(value, ast.Call):
        name = value.func.id if isinstance(value.func, ast.Name) else getattr(value.func, "attr", "")
        return name in CONTAINERS
    return False


def containers(tree: ast.Module) -> Iterator[tuple[str, ast.stmt, bool]]:
    """Module-level names that hold a list, dict or set: name, statement, whether it is declared Final."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets, final = statement.targets, False
        elif isinstance(statement, ast.AnnAssign):
            targets, final = [statement.target], "Final" in ast.unparse(statement.annotation)
        else:
            continue
        if makes_a_container(statement.value):
            for target in targets:
                if isinstance(target, ast.Name) and target.id != "__all__":
                    yield target.id, statement, final


def changes(tree: ast.Module, name: str) -> Iterator[ast.AST]:
    """Places where a module-level container is changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            target: ast.expr = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            target = node.func.value
        elif isinstance(node, ast.AugAssign):
            target = node.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id == name:
            yield node


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_mutable_module_global(module: Module):
    """A table may be a dict if it is declared `Final` and nothing in its module changes it."""
    rebound = [place(module.path, node) for node in ast.walk(module.tree) if isinstance(node, ast.Global)]
    assert not rebound, "`global` makes state of a module"
    for name, statement, final in containers(module.tree):
        assert final, f"{place(module.path, statement)}: '{name}' is mutable; make it a tuple, or declare it Final"
        assert not [place(module.path, node) for node in changes(module.tree, name)], f"'{name}' is changed"


def test_the_rules_catch_what_they_forbid():
    bad = ast.parse(
        "CACHE = {}\nTABLE: Final = {'a': 1}\ndef f():\n    TABLE['b'] = torch.load('x', weights_only=False)\n"
    )
    assert [(name, final) for name, _, final in containers(bad)] == [("CACHE", False), ("TABLE", True)]
    assert len(list(changes(bad, "TABLE"))) == 1
    assert sum(loads_a_pickle(node) for node in ast.walk(bad)) == 1
